"""Sampled subgraphs: what some rounds of message passing reach from a few nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.sparse import csr, sparse_product


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A sampled neighbourhood; to a backbone it reads like a :class:`BipartiteGraph`.

    An edge leads from a node to the drawn neighbours it listens to. A node that is reached in two
    rounds stands there twice, with draws of its own, so that products of draws stay independent.

    Args:
        user: id of every user node ``[U']``, those asked for first (ascending, unique).
        item: id of every item node ``[I']``, likewise.
        num_asked: users and items asked for; the rows of all others are means to an end.
        indptr: edges of node ``n`` are those from ``indptr[n]`` to ``indptr[n + 1]``, ``[N' + 1]``.
        neighbour: the node an edge listens to ``[E']``; items are numbered after all users.
        edge_weight: normalised weight in the whole graph over the chance of the draw ``[E']``.
        raw_weight: the same of the weight before normalisation ``[E']``.
    """

    user: Tensor
    item: Tensor
    num_asked: tuple[int, int]
    indptr: Tensor
    neighbour: Tensor
    edge_weight: Tensor
    raw_weight: Tensor

    @property
    def num_users(self) -> int:
        """User nodes."""
        return len(self.user)

    @property
    def num_items(self) -> int:
        """Item nodes."""
        return len(self.item)

    @property
    def num_nodes(self) -> int:
        """Users and items together."""
        return self.num_users + self.num_items

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self.user.device

    @cached_property
    def _listener(self) -> Tensor:
        return torch.repeat_interleave(
            torch.arange(self.num_nodes, device=self.device),
            self.indptr.diff(),
            output_size=len(self.neighbour),
        )

    @cached_property
    def edge_index(self) -> EdgeIndex:
        """Neighbour and listener of every edge ``[2, E']``: messages flow from first to second."""
        ends = torch.stack([self.neighbour, self._listener])
        return EdgeIndex(ends, sparse_size=(self.num_nodes,) * 2, sort_order="col")

    @cached_property
    def _matrices(self) -> tuple[Tensor, Tensor]:
        """The sampled adjacency and its transpose (CSR)."""
        size, (heard, order) = (self.num_nodes,) * 2, self.neighbour.sort()
        count = torch.bincount(heard, minlength=self.num_nodes).cumsum(0)
        pointer = torch.cat([count.new_zeros(1), count])
        return (
            csr(self.indptr, self.neighbour, self.edge_weight, size),
            csr(pointer, self._listener[order], self.edge_weight[order], size),
        )

    def propagate(self, x: Tensor) -> Tensor:
        """One round of message passing; what is asked for hears an unbiased estimate."""
        return sparse_product(*self._matrices, x)

    def asked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the users and of the items asked for, of rows of all nodes ``[N', D]``."""
        users, items = self.num_asked
        return x[:users], x[self.num_users : self.num_users + items]


def neighbourhood(
    graph: BipartiteGraph,
    user: Tensor,
    item: Tensor,
    fanout: Sequence[int],
    *,
    generator: torch.Generator,
) -> Subgraph:
    r"""What ``len(fanout)`` rounds of message passing reach from some users and items.

    Of the :math:`d` neighbours of a node, round :math:`l` draws :math:`f = \min(f_l, d)` without
    replacement, at the places :math:`\lfloor (r + jd) / f \rfloor \bmod d` of its row for
    :math:`j < f` and one uniform :math:`r \in [0, fd)`. Every neighbour then has the chance
    :math:`f / d`, by which its weight is divided, so the expected message is that of the whole
    graph; for a backbone that is linear in its messages the expected output is as well. With every
    :math:`f_l \ge d`, or -1, it is exactly that. Systematic sampling: Madow and Madow, *On the
    Theory of Systematic Sampling*, Ann. Math. Statist. 1944; neighbour sampling: Hamilton et al.,
    *GraphSAGE*, NeurIPS 2017, https://arxiv.org/abs/1706.02216.

    All of it is tensor operations on the device of the graph; the host learns sizes only.

    Args:
        graph: the whole graph; its CSR and normalisation are made once and kept.
        user: users asked for ``[n]``, repeated or not.
        item: items asked for ``[m]``.
        fanout: neighbours drawn in each round, nearest first; -1 takes all.
        generator: source of the draws, on the device of ``graph``.

    >>> from ccdgraph.data import Interactions
    >>> pairs = Interactions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    >>> graph, nothing = BipartiteGraph.from_interactions(pairs, 2, 2), torch.empty(0).long()
    >>> near = neighbourhood(graph, torch.tensor([1]), nothing, [-1], generator=torch.Generator())
    >>> near.user.tolist(), near.item.tolist()
    ([1], [1])
    """
    (rowptr, col), _ = graph.edge_index.get_csr()
    nodes = [torch.cat([user.unique(), item.unique() + graph.num_users])]
    rounds = []
    for most in fanout:
        row, edge, inverse_chance = _draw(rowptr, nodes[-1], most, generator)
        reached, slot = _distinct(col[edge])
        rounds.append((row, slot, edge, inverse_chance))
        nodes.append(reached)
    places = _Places(nodes, graph.num_users)
    listener = [places(hop, row) for hop, (row, *_) in enumerate(rounds)]
    neighbour = [places(hop + 1, slot) for hop, (_, slot, *_) in enumerate(rounds)]
    nothing = nodes[0][:0]
    order_key, order = torch.cat([nothing, *listener]).sort()
    edge = torch.cat([nothing, *(edge for *_, edge, _ in rounds)])[order]
    factor = torch.cat([graph.weight[:0], *(factor for *_, factor in rounds)])[order]
    count = torch.bincount(order_key, minlength=sum(map(len, nodes))).cumsum(0)
    return Subgraph(
        torch.cat([node[:size] for node, size in zip(nodes, places.users, strict=True)]),
        torch.cat([node[size:] for node, size in zip(nodes, places.users, strict=True)])
        - graph.num_users,
        (places.users[0], len(nodes[0]) - places.users[0]),
        torch.cat([count.new_zeros(1), count]),
        torch.cat([nothing, *neighbour])[order],
        graph.edge_weight[edge] * factor,
        graph.raw_weight[edge] * factor,
    )


class _Places:
    """Where the nodes of every round stand: the users of all rounds, then the items."""

    def __init__(self, nodes: Sequence[Tensor], num_users: int) -> None:
        below = [(node < num_users).sum() for node in nodes]
        self.users: list[int] = torch.stack(below).tolist()  # the one wait for the device
        items = [len(node) - users for node, users in zip(nodes, self.users, strict=True)]
        self.first_user = [0, *accumulate(self.users)]
        self.first_item = list(accumulate(items, initial=self.first_user[-1]))

    def __call__(self, hop: int, place: Tensor) -> Tensor:
        """Node numbers of places among the nodes of one round."""
        users = self.users[hop]
        as_user, as_item = place + self.first_user[hop], place + (self.first_item[hop] - users)
        return torch.where(place < users, as_user, as_item)


def _draw(
    rowptr: Tensor, node: Tensor, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ``node``, places among all edges, and one over the chance, of every edge drawn."""
    first = rowptr[node]
    degree = rowptr[node + 1] - first
    count = degree if most < 0 else degree.clamp(max=most)
    row = torch.repeat_interleave(torch.arange(len(node), device=node.device), count)
    turn = torch.arange(len(row), device=node.device) - (count.cumsum(0) - count)[row]
    # Whole numbers throughout: a rounded stride could meet the same neighbour twice.
    noise = torch.rand(len(node), generator=generator, device=node.device, dtype=torch.float64)
    start = (noise * (degree * count)).long()
    degree, count = degree[row], count[row]
    place = (start[row] + turn * degree) // count % degree
    return row, first[row] + place, (degree / count).float()


def _distinct(index: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending distinct values, and the place of every entry among them."""
    ordered, order = index.sort()
    distinct, run = torch.unique_consecutive(ordered, return_inverse=True)
    slot = torch.empty_like(run)
    slot[order] = run
    return distinct, slot
