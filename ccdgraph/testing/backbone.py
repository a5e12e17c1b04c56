"""The contract of a backbone, checked by its effects alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ccdgraph.config import rng
from ccdgraph.continual.growth import grow
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.evaluate import evaluate
from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.multvae import MultVAE
from ccdgraph.sampling import TripletBatches
from ccdgraph.testing.require import require
from ccdgraph.train import FitConfig, Objective, Part, embed, fit, ranking, reconstruction

_DIM = 8
# On the planted stream popularity reaches a recall@20 of .17 and the worst of MF, LightGCN,
# MultVAE, GraphSAGE, GAT and GCN .85 after this training, over seeds.
_BOUND = 0.5
_FIT = FitConfig(epochs=20, lr=1e-2, weight_decay=0.0)


def check_backbone(
    build: Callable[..., Backbone], *, moves: Sequence[str] = ("user", "item")
) -> None:
    """Check the contract of a backbone, by its effects alone.

    Growth keeps old rows and leaves no table behind; isolated nodes stay finite; permuting entities
    permutes the output; gradient reaches every row; adding an edge moves its ends; the graph is
    not stored; another size is refused; the generator alone decides the initial values; a planted
    stream is learnt.

    Args:
        build: a class, or a factory called with ``(num_users, num_items, dim, generator=...)``.
        moves: ends whose served embedding an added edge moves: neither for a backbone that ignores
            the graph, ``("user",)`` for one that encodes users alone.

    >>> from ccdgraph.nn import MF
    >>> check_backbone(MF, moves=())
    """
    graph = _small_graph("graph")
    model = _build(build, graph)
    _check_initial_values(build, graph)
    _check_finite(model, graph)
    _check_size(model, graph)
    _check_not_stored(model, graph, moves)
    _check_added_edge(model, graph, moves)
    for side in ("user", "item"):
        _check_permutation(model, graph, side)
    _check_gradient(model, graph)
    _check_growth(model, graph)
    _check_learning(build)


def _small_graph(*use: str) -> BipartiteGraph:
    """Eleven users and eight items with edges, and one isolated node of each kind."""
    generator = rng("testing", *use)
    users, items = torch.arange(11).repeat(3), torch.arange(33) % 8
    user = users[torch.randperm(33, generator=generator)]
    return BipartiteGraph.from_interactions(Interactions(user, items), 12, 9)


def _build(build: Callable[..., Backbone], graph: BipartiteGraph) -> Backbone:
    model = build(graph.num_users, graph.num_items, _DIM, generator=rng("testing", "init"))
    return model.eval()


def _check_initial_values(build: Callable[..., Backbone], graph: BipartiteGraph) -> None:
    state = torch.get_rng_state()
    first, second = _build(build, graph).state_dict(), _build(build, graph).state_dict()
    untouched = torch.equal(state, torch.get_rng_state())
    require(
        untouched,
        "building the backbone draws from torch's global generator; fork that, as 'GNN' does",
    )
    for name in first:
        equal = torch.equal(first[name], second[name])
        require(equal, f"equal generators give two different '{name}'")


def _check_finite(model: Backbone, graph: BipartiteGraph) -> None:
    for training in (True, False):
        out = model.train(training)(graph)
        sizes = (len(out.user), len(out.item)) == (graph.num_users, graph.num_items)
        require(sizes, "the output does not have one row for every user and item")
        grads = torch.autograd.grad(
            out.user.sum() + out.item.sum(), list(model.parameters()), allow_unused=True
        )
        values = [out.user, out.item, *(grad for grad in grads if grad is not None)]
        finite = all(bool(value.isfinite().all()) for value in values)
        require(finite, "with an isolated node the output or its gradient is not finite")


def _check_size(model: Backbone, graph: BipartiteGraph) -> None:
    for users, items in ((1, 0), (0, 1)):
        larger = graph.grow(Interactions.cat([]), graph.num_users + users, graph.num_items + items)
        refused = False
        try:
            model(larger)
        except ValueError:
            refused = True
        except (RuntimeError, IndexError):
            pass  # not a sentence that says what to do
        require(refused, "a graph of another size is not refused with a ValueError")


def _check_not_stored(model: Backbone, graph: BipartiteGraph, moves: Sequence[str]) -> None:
    first, other, again = (embed(model, g) for g in (graph, _small_graph("other"), graph))
    same = torch.equal(first.user, again.user) and torch.equal(first.item, again.item)
    require(same, "going back to the first graph gives another output; something is stored")
    for side in moves:
        moved = not torch.equal(_side(first, side), _side(other, side))
        require(moved, f"another graph gives the same {side} embeddings; its edges are not read")


def _check_added_edge(model: Backbone, graph: BipartiteGraph, moves: Sequence[str]) -> None:
    before = embed(model, graph)
    for user, item in ((0, graph.num_items - 1), (graph.num_users - 1, 0)):
        edge = Interactions(torch.tensor([user]), torch.tensor([item]))
        after = embed(model, graph.grow(edge, graph.num_users, graph.num_items))
        for side, node in (("user", user), ("item", item)):
            moved = not torch.equal(_side(before, side)[node], _side(after, side)[node])
            verb = "moves" if moved else "does not move"
            require(moved == (side in moves), f"adding an edge {verb} its {side}")


def _check_permutation(model: Backbone, graph: BipartiteGraph, side: str) -> None:
    size = {"user": graph.num_users, "item": graph.num_items}[side]
    order = torch.randperm(size, generator=rng("testing", "order"))
    permuted = copy.deepcopy(model)
    with torch.no_grad():
        for name, table in _tables(permuted).items():
            if permuted.entity_tables[name] == side:
                table.copy_(table[order])
    ends = {"user": graph.user, "item": graph.item}
    ends[side] = order.argsort()[ends[side]]
    pairs = Interactions(ends["user"], ends["item"])
    turned = BipartiteGraph.from_interactions(pairs, graph.num_users, graph.num_items)
    before, after = embed(model, graph), embed(permuted, turned)
    for kind in ("user", "item"):
        wanted = _side(before, kind)[order] if kind == side else _side(before, kind)
        close = torch.allclose(_side(after, kind), wanted, rtol=1e-4, atol=1e-6)
        require(close, f"permuting the {side}s does not permute the {kind} embeddings with them")


def _check_gradient(model: Backbone, graph: BipartiteGraph) -> None:
    out: Embeddings = model(graph)
    scores = out.scores(torch.arange(graph.num_users))
    tables = _tables(model)
    weight = torch.randn(scores.shape, generator=rng("testing", "gradient"))
    grads = torch.autograd.grad((scores * weight).sum(), list(tables.values()), allow_unused=True)
    for name, grad in zip(tables, grads, strict=True):
        # The last row is that of the isolated node.
        reached = grad is not None and bool((grad[:-1] != 0).any(1).all())
        require(reached, f"no gradient reaches some rows of the table '{name}'")


def _check_growth(model: Backbone, graph: BipartiteGraph) -> None:
    users, items = graph.num_users, graph.num_items
    new = Interactions(torch.tensor([users, users + 1, 0]), torch.tensor([0, items, items]))
    larger = graph.grow(new, users + 2, items + 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grown = grow(model, larger, generator=rng("testing", "growth"))
    for name, value in grown.state_dict().items():
        old = value[: len(before[name])] if name in model.entity_tables else value
        require(torch.equal(old, before[name]), f"growth changes old values of '{name}'")
    try:
        out = embed(grown, larger)
    except (RuntimeError, IndexError) as error:
        raise AssertionError(
            f"the grown backbone fails ({error}); name every table in 'entity_tables'"
        ) from error
    sizes = (len(out.user), len(out.item)) == (users + 2, items + 1)
    require(sizes, "after growth the output does not have one row for every user and item")


def _check_learning(build: Callable[..., Backbone]) -> None:
    stream = synthetic_stream(
        200, 200, 4000, num_blocks=1, num_communities=10, affinity=1.0, drift=0.0, base=0.9
    )
    block = stream[0]
    graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    seen = graph.user_items
    model = build(block.num_users, block.num_items, 16, generator=rng("testing", "init"))
    draws = rng("testing", "batches")
    if not isinstance(model, MultVAE):
        triplets = TripletBatches(
            block.train, block.num_items, seen.keys(), batch_size=512, generator=draws
        )
        part = Part(ranking(model), triplets)
    else:
        part = reconstruction(model, graph, batch_size=64, generator=draws)
    fit(model, graph, [Objective((part,))], _FIT, seed=("testing",))
    recall = evaluate(embed(model, graph), block.test, seen, ks=(20,)).mean()["recall@20"]
    require(recall >= _BOUND, f"recall@20 on a planted stream is {recall:.2f}, below {_BOUND}")


def _tables(model: Backbone) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if n in model.entity_tables}


def _side(out: Embeddings, kind: str) -> Tensor:
    return out.user if kind == "user" else out.item
