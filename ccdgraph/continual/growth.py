"""Growth: new rows for entities that a block brings, initialised from one and two hops."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Backbone

Model = TypeVar("Model", bound=Backbone)
Initialisation = Literal["two-hop", "two-hop-any", "one-hop", "random"]


def grow(
    model: Model,
    graph: BipartiteGraph,
    *,
    init: Initialisation = "two-hop",
    topk: int = 20,
    std: float = 0.01,
    generator: torch.Generator | None = None,
) -> Model:
    r"""A copy of ``model`` with rows for every entity of ``graph``; old rows keep their bits.

    A new entity starts as the mean of what its known neighbours (one hop) and the prominent known
    entities of its own kind that share a neighbour with it (two hops) have learnt:

    .. math:: e_u = \tfrac12 \Big( \frac{1}{|N_u|} \sum_{i \in N_u} e_i
        + \frac1k \sum_{v \in \mathrm{top}_k N^2_u} e_v \Big)

    Prominence is the number of interactions. Where fewer than ``k`` entities lie two hops away the
    most prominent of all fill up; without any known neighbour the two-hop mean stands alone. Lee et
    al., KDD 2024, https://arxiv.org/abs/2405.19046, section on entity embedding initialisation. A
    backbone with features may start such entities elsewhere (:meth:`ccdgraph.nn.Backbone.start`).

    Args:
        model: knows the first ``num_users`` users and ``num_items`` items of ``graph``.
        graph: edges known now, those of the new entities included.
        init: ``"two-hop"`` as above, ``"two-hop-any"`` with ``k`` random entities in place of the
            prominent ones (an ablation), ``"one-hop"`` for its first half alone, or ``"random"``.
        topk: prominent entities averaged, ``k``.
        std: deviation of the rows where ``init`` is ``"random"`` or nothing is known.
        generator: source of random rows and of a random order of entities.

    Raises:
        ValueError: ``graph`` has fewer entities than the model.
    """
    if graph.num_users < model.num_users or graph.num_items < model.num_items:
        raise ValueError(
            f"graph has {graph.num_users} users and {graph.num_items} items, the backbone already "
            f"{model.num_users} and {model.num_items}; a model cannot shrink"
        )
    grown = copy.deepcopy(model)
    grown.num_users, grown.num_items = graph.num_users, graph.num_items
    sides = {"user": graph.user_items, "item": graph.item_users}
    partner = {"user": "item", "item": "user"}
    tables = {
        name: table.detach()
        for name, table in model.named_parameters()
        if name in model.entity_tables
    }
    for name, side in model.entity_tables.items():
        own, entities = tables[name], sides[side]
        num_new = entities.num_users - own.shape[0]
        rows = (torch.randn(num_new, own.shape[1], generator=generator) * std).to(own)
        if init != "random" and num_new:
            prominence = None
            if init == "two-hop-any":
                prominence = torch.randperm(len(own), generator=generator).to(own.device)
            others, learnt = sides[partner[side]], tables.get(partner[side])
            one, has_one, two = initial_rows(
                entities, others, own, learnt, topk=topk, prominence=prominence
            )
            rows = _mix(rows, one, has_one, None if init == "one-hop" else two)
            rows = model.start(name, rows, ~has_one)
        setattr(grown, name, nn.Parameter(torch.cat([own, rows])))
    return grown


def initial_rows(
    entities: UserItems,
    partners: UserItems,
    own: Tensor,
    neighbours: Tensor | None,
    *,
    topk: int,
    prominence: Tensor | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """One-hop means, which rows have one, and two-hop means, for the entities beyond ``own``.

    Args:
        entities: partners of every entity of this kind, old and new (CSR).
        partners: entities of this kind of every partner (the transposed CSR).
        own: learnt rows of the known entities of this kind ``[n, D]``.
        neighbours: learnt rows of the known partners ``[m, D]``, or ``None`` if they have none.
        topk: prominent entities in a two-hop mean.
        prominence: of the known entities ``[n]``; by default their number of partners.

    Returns:
        ``[new, D]`` or ``None``, a mask ``[new]``, and ``[new, D]``.
    """
    known, device = own.shape[0], own.device
    new = torch.arange(known, entities.num_users, device=device)
    row, partner = entities.entries(new)
    one, has_one = None, torch.zeros(len(new), dtype=torch.bool, device=device)
    if neighbours is not None:
        old = partner < neighbours.shape[0]
        count = torch.bincount(row[old], minlength=len(new))
        one = own.new_zeros(len(new), own.shape[1])
        one.index_add_(0, row[old], neighbours[partner[old]])
        one /= count.clamp(min=1).unsqueeze(1)
        has_one = count > 0
    rank = entities.degree[:known] if prominence is None else prominence
    prominent = _two_hop(row, partner, partners, rank, len(new), topk)
    return one, has_one, own[prominent].mean(1)


def _two_hop(
    row: Tensor, partner: Tensor, partners: UserItems, frequency: Tensor, num_new: int, topk: int
) -> Tensor:
    """The most frequent known entities two hops away of each new one, ``[new, topk]``.

    Only the ``topk`` most frequent entities of each partner can be among the ``topk`` of a union of
    partners, so the expansion is linear in the edges of the new entities. Where the two hops reach
    fewer, the most frequent entities of all that are not yet in the list fill it up.
    """
    known, device = frequency.numel(), frequency.device
    topk = min(topk, known)
    by_frequency = torch.argsort(frequency, descending=True, stable=True)
    place = torch.empty_like(by_frequency)
    place[by_frequency] = torch.arange(known, device=device)
    wanted, slot = torch.unique(partner, return_inverse=True)
    owner, entity = partners.entries(wanted)
    old = entity < known
    best = _smallest(owner[old], place[entity[old]], known, len(wanted), topk)
    candidate = best[slot].flatten()
    real = candidate < known
    group = row.repeat_interleave(topk)[real]
    near = _smallest(group, candidate[real], known, num_new, topk)
    # Twice the length holds enough entities that are not near already.
    offer = torch.arange(min(2 * topk, known), device=device).repeat(num_new, 1)
    spot = torch.searchsorted(near, offer).clamp_(max=topk - 1)
    taken = near.gather(1, spot) == offer
    last = 2 * known
    pool = torch.cat(
        [near.masked_fill(near == known, last), (offer + known).masked_fill(taken, last)], dim=1
    )
    return by_frequency[pool.sort(1).values[:, :topk] % known]


def _smallest(group: Tensor, value: Tensor, size: int, num_groups: int, k: int) -> Tensor:
    """The ``k`` smallest distinct values below ``size`` of each group, ascending, padded by it."""
    key = torch.unique(group * size + value)
    group, value = key // size, key % size
    count = torch.bincount(group, minlength=num_groups)
    rank = torch.arange(len(key), device=key.device) - (count.cumsum(0) - count)[group]
    out = value.new_full((num_groups, k), size)
    keep = rank < k
    out[group[keep], rank[keep]] = value[keep]
    return out


def _mix(random: Tensor, one: Tensor | None, has_one: Tensor, two: Tensor | None) -> Tensor:
    """Half of each hop; the two-hop mean, or else the random row, where there is no one-hop."""
    alone = random if two is None else two
    if one is None:
        return alone
    both = one if two is None else (one + two) / 2
    return torch.where(has_one.unsqueeze(1), both, alone)
