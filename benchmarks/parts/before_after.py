"""Optimisations one by one: seconds without and with each, and what it changes in the result.

``speed.py`` runs them as its part "before and after". Both sides of a pair are timed by turns, so
that other work on the machine slows both. ``difference`` is the largest difference of the results,
for lists the share of users with another list. Kept are those that pay where they are used; the
others stand here to be measured again on another device.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from parts.clock import Clock
from parts.layers import torch_product
from parts.training_steps import added_rows, compared, keyed, summed_layers
from torch import Tensor

from ccdgraph import losses, ranking
from ccdgraph.config import rng
from ccdgraph.data import skewed_interactions
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import is_in
from ccdgraph.distill.rrd import RRD
from ccdgraph.distill.teacher import Ensemble
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import Embeddings, LightGCN
from ccdgraph.ranking import ranks_of, recommend_lists
from ccdgraph.sampling import Entities, TripletBatches
from ccdgraph.selection import Validation
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit

SMALL = (3000, 2500, 100_000)


def before_after(graph: BipartiteGraph, clock: Clock) -> dict[str, dict[str, Any]]:
    """Every optimisation that the device has, on a graph of Gowalla's size."""
    parts = {
        "sparse product by kernels, forward and backward": kernels,
        "gradients of gathered rows added up, BPR step": added_rows,
        "layers summed, not stacked, BPR step": summed_layers,
        "top 100 by keys, 2,048 users": keyed,
        "one metric of prepared targets": selection,
        "score blocks of 16 MiB, five teachers": blocks,
        "bf16 scores, full ranking": bf16,
        "one propagation for five teachers": wide,
        "rest of the catalogue by one product (RRD)": rest,
        "replay ranks by counting": counting,
        "steps recorded as CUDA graphs": recorded,
    }
    found = {name: part(graph, clock) for name, part in parts.items()}
    return {name: row for name, row in found.items() if row is not None}


def by_turns(
    clock: Clock, before: Callable[[], Any], after: Callable[[], Any]
) -> tuple[dict[str, Any], Any, Any]:
    """Median seconds of both sides and the median ratio, after one turn that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(clock.repeats + 1):
        (first, old), (second, new) = clock.once(before), clock.once(after)
        seconds[0].append(first)
        seconds[1].append(second)
    pairs = list(zip(*(side[1:] for side in seconds), strict=True))
    row = {
        "before": statistics.median(first for first, _ in pairs),
        "after": statistics.median(second for _, second in pairs),
        "times faster": statistics.median(first / second for first, second in pairs),
    }
    return row, old, new


def kernels(graph: BipartiteGraph, clock: Clock) -> dict[str, Any] | None:
    """One layer of d = 64 and its gradient by torch's CSR product, and by the Triton kernels."""
    if clock.device.type != "cuda":
        return None
    x = torch.randn(graph.num_nodes, 64, device=clock.device, requires_grad=True)
    gradient = torch.randn(x.shape, device=clock.device)

    def both() -> list[Tensor]:
        out = graph.propagate(x)
        return [out.detach(), *torch.autograd.grad(out, x, gradient)]

    return compared(clock, both, torch_product())


def blocks(graph: BipartiteGraph, clock: Clock) -> dict[str, Any] | None:
    """Lists of 256 users by five teachers, blocks of scores as large as the budget, and capped."""
    if clock.device.type != "cpu":
        return None
    teachers = Ensemble([tables(graph, 128)] * 5)
    user = torch.arange(256)

    def lists() -> Tensor:
        return recommend_lists(teachers, user, 100, graph.user_items)[1]

    def whole() -> Tensor:
        with mock.patch.object(ranking, "BLOCK", ranking.BUDGET):
            return lists()

    row, old, new = by_turns(clock, whole, lists)
    return row | {"difference": other_lists(old, new)}


def selection(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Recall@20 of 2,000 users out of a whole evaluation, and alone with its targets prepared."""
    rows = skewed_interactions(graph.num_users, graph.num_items, 8000, seed=1).to(graph.device)
    targets = rows[rows.user < 2000] if clock.device.type == "cpu" else rows
    out, seen = tables(graph, 64), graph.user_items
    validation = Validation(targets, seen, k=20)
    row, old, new = by_turns(
        clock,
        lambda: evaluate(out, targets, seen, ks=(20,)).mean()["recall@20"],
        lambda: validation(out),
    )
    return row | {"difference": abs(old - new), "recall@20 before": old, "recall@20 after": new}


def bf16(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Full rankings and Recall@20 of a trained model, its scores in float32 and in bfloat16."""
    block, test, model, learnt = small_world(clock.device)
    out = embed(model, learnt)
    half = replace(out, user=out.user.bfloat16(), item=out.item.bfloat16(), layers=())
    large = tables(graph, 64)
    low = replace(large, user=large.user.bfloat16(), item=large.item.bfloat16())
    user = torch.arange(2000, device=clock.device)
    row, old, new = by_turns(
        clock,
        lambda: recommend_lists(large, user, 100, graph.user_items)[1],
        lambda: recommend_lists(low, user, 100, graph.user_items)[1],
    )
    recall = [evaluate(o, test, block, ks=(20,)).mean()["recall@20"] for o in (out, half)]
    return row | {
        "difference": other_lists(old, new),
        "recall@20 before": recall[0],
        "recall@20 after": recall[1],
    }


def wide(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Embeddings of five LightGCN of d = 64, one after another and side by side in one product."""
    sizes = graph.num_users, graph.num_items
    models = [LightGCN(*sizes, 64, generator=rng("wide", m)).to(clock.device) for m in range(5)]

    def single() -> list[Embeddings]:
        return [embed(model, graph) for model in models]

    @torch.no_grad()
    def together() -> list[Embeddings]:
        x = torch.cat([torch.cat([model.user, model.item]) for model in models], dim=1)
        out = models[0].readout(models[0].layers(x, graph))
        parts = (part.contiguous().split(list(sizes)) for part in out.split(64, dim=1))
        return [Embeddings(*part) for part in parts]

    row, old, new = by_turns(clock, single, together)
    gaps = [(a.user - b.user).abs().max() for a, b in zip(old, new, strict=True)]
    return row | {"difference": float(torch.stack(gaps).max())}


def rest(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """RRD of 256 users, 90 % of the items as rest: scored and masked by autograd, and as it is."""
    out = tables(graph, 16)
    leaves = [x.requires_grad_() for x in (out.user, out.item)]
    lists = torch.randint(graph.num_items, (graph.num_users, 100), device=clock.device)
    lists = lists.sort(1).values
    lists[:, 1:][lists[:, 1:] == lists[:, :-1]] = -1
    num_rest = graph.num_items * 9 // 10
    draw = rng("rest", device=clock.device)
    term = RRD(lists, graph.user_items, num_rest=num_rest, generator=draw)
    term.begin_epoch(0)
    index = torch.arange(256, device=clock.device)
    seen = term.seen.padded_entries(index, int(term.most[255]))

    def alone() -> list[Tensor]:
        assert term.kept is not None
        scored = term._scored_alone(out, index, term.kept, *seen)
        loss = losses.relaxed_ranking(*scored, term.real[index])
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    def product() -> list[Tensor]:
        loss = term(out, Entities(index))
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    row, old, new = by_turns(clock, alone, product)
    gaps = [(a - b).abs().max() for a, b in zip(old[1:], new[1:], strict=True)]
    return row | {"difference": float(torch.stack(gaps).max())}


def counting(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Ranks of 50 items of 64 users: two sorts, and counting into buckets."""
    scores = tables(graph, 64).scores(torch.arange(64, device=clock.device))
    item = torch.randint(graph.num_items, (64, 50), device=clock.device)

    def sorting() -> Tensor:
        order = scores.argsort(dim=1, descending=True, stable=True)
        return order.argsort(dim=1).gather(1, item)

    row, old, new = by_turns(clock, sorting, lambda: ranks_of(scores, item))
    return row | {"difference": float((old - new).abs().max())}


def recorded(graph: BipartiteGraph, clock: Clock) -> dict[str, Any] | None:
    """An epoch of many small steps, launched one kernel at a time and replayed."""
    if clock.device.type != "cuda":
        return None

    def train(record: bool) -> Tensor:
        return small_world(clock.device, record=record, epochs=8)[2].user.detach()

    row, old, new = by_turns(clock, lambda: train(False), lambda: train(True))
    return row | {"difference": float((old - new).abs().max())}


def small_world(
    device: torch.device, *, record: bool = True, epochs: int = 4
) -> tuple[Any, Any, LightGCN, BipartiteGraph]:
    """Seen items, held-out rows, a LightGCN that has learnt the others, and their graph."""
    rows = skewed_interactions(*SMALL).to(device)
    held = torch.arange(len(rows), device=device) % 5 == 0
    learnt = BipartiteGraph.from_interactions(rows[~held], *SMALL[:2])
    seen = learnt.user_items
    test = rows[held]
    test = test[~is_in(test.user * SMALL[1] + test.item, seen.keys())]
    model = LightGCN(*SMALL[:2], 64, std=0.1, generator=rng("small")).to(device)
    draw = rng("small", "order", device=device)
    batches = TripletBatches(rows[~held], SMALL[1], seen.keys(), batch_size=1024, generator=draw)
    config = FitConfig(epochs=epochs, lr=5e-3, weight_decay=0.0, record=record)
    fit(model, learnt, [Objective((Part(BPR(), batches),))], config)
    return seen, test, model, learnt


def tables(graph: BipartiteGraph, dim: int) -> Embeddings:
    """Random embeddings of everybody."""
    draw = torch.Generator().manual_seed(0)
    sizes = (graph.num_users, graph.num_items)
    return Embeddings(*(torch.randn(n, dim, generator=draw) for n in sizes)).to(graph.device)


def other_lists(old: Tensor, new: Tensor) -> float:
    """Share of the users whose list is another."""
    return float((old != new).any(1).double().mean())
