"""Recorded training steps of the Yelp stream's size, and their parts before and after a change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal
from unittest import mock

import torch
from parts.clock import Clock
from torch import Tensor, nn

from ccdgraph import losses
from ccdgraph.config import rng
from ccdgraph.continual import lwckd
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.sparse import without_kernels
from ccdgraph.distill.rrd import RRD
from ccdgraph.nn import LightGCN, backbone, lightgcn
from ccdgraph.objective import BPR, Views
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.topk import keyed_topk, topk
from ccdgraph.train import FitConfig, _adam, _step

YELP = (12_248, 10_822, 119_869)  # the base block


def training_steps(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Seconds that a device takes for one step of a base teacher, and for one of stage 1."""
    large, small = (
        LightGCN(graph.num_users, graph.num_items, dim, generator=rng("steps", dim)).to(
            graph.device
        )
        for dim in (128, 8)
    )
    terms, batches = zip(listwise(graph, "user"), listwise(graph, "item"), strict=True)
    whole = [triplets(graph, 1024), *batches]
    return {
        "base teacher, d = 128, batch 512": clock.on_device(
            step_of(large, graph, [BPR()], [triplets(graph, 512)])
        ),
        "stage 1, d = 8, batch 1024, both lists": clock.on_device(
            step_of(small, graph, [BPR(), *terms], whole)
        ),
    }


def step_of(
    model: LightGCN, graph: BipartiteGraph, terms: list[Any], batches: list[Any]
) -> Callable[[], None]:
    """The step of the optimiser that ``fit`` records."""
    trainable = nn.ModuleList([model, *terms])
    adam = _adam(trainable, FitConfig(), capturable=graph.device.type == "cuda")
    views = Views(graph, None, model.depth, rng("around", device=graph.device))
    weight = torch.ones(len(terms), device=graph.device)
    total = torch.zeros((), device=graph.device)
    return lambda: _step(model, views, terms, adam, weight, total, batches)


def triplets(graph: BipartiteGraph, size: int) -> Triplets:
    """Pairs of the graph, each with any item."""
    draw = rng("triplets", size, device=graph.device)
    place = torch.randint(len(graph.user), (size,), generator=draw, device=graph.device)
    other = torch.randint(graph.num_items, (size, 1), generator=draw, device=graph.device)
    return Triplets(graph.user[place], graph.item[place], other)


def listwise(graph: BipartiteGraph, side: Literal["user", "item"]) -> tuple[RRD, Entities]:
    """RRD on lists of 40 with nine tenths of the rest, and a batch of 1,024."""
    seen = graph.user_items if side == "user" else graph.item_users
    draw = rng("lists", side, device=graph.device)
    place = torch.rand(seen.num_users, seen.num_items, generator=draw, device=graph.device)
    lists, num_rest = place.topk(40, dim=1).indices, seen.num_items * 9 // 10
    term = RRD(lists, seen, side=side, num_rest=num_rest, generator=draw)
    term.begin_epoch(0)
    order = torch.randperm(seen.num_users, generator=draw, device=graph.device)
    return term, Entities(order[:1024])


def compared(
    clock: Clock, run: Callable[[], list[Tensor]], without: AbstractContextManager[Any]
) -> dict[str, Any]:
    """Seconds of ``run`` within ``without`` and outside of it, and how its results differ."""
    with without:
        old, before = run(), clock.on_device(run)
    new, after = run(), clock.on_device(run)
    gaps = [(a - b).abs().max() for a, b in zip(old, new, strict=True)]
    seconds = {"before": before, "after": after, "times faster": before / after}
    return seconds | {"difference": float(torch.stack(gaps).max())}


def gradients(graph: BipartiteGraph) -> Callable[[], list[Tensor]]:
    """Loss and gradients of a BPR step of LightGCN, d = 64, batch 2,048."""
    sizes = graph.num_users, graph.num_items
    model = LightGCN(*sizes, 64, generator=rng("gradients")).to(graph.device)
    batch, term, tables = triplets(graph, 2048), BPR(), list(model.parameters())

    def run() -> list[Tensor]:
        loss = term(model(graph), batch)
        return [loss.detach(), *torch.autograd.grad(loss, tables)]

    return run


def added_rows(graph: BipartiteGraph, clock: Clock) -> dict[str, Any] | None:
    """A BPR step with torch's gradient of gathered rows, and with one sum over them."""
    if clock.device.type != "cuda":
        return None

    def plain(table: Tensor, index: Tensor) -> Tensor:
        return nn.functional.embedding(index, table)

    return compared(clock, gradients(graph), mock.patch.object(backbone, "rows", plain))


def summed_layers(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """A BPR step with the layers stacked for their mean, and summed one after another."""

    def stacked(layers: list[Tensor]) -> Tensor:
        return torch.stack(layers).mean(0)

    return compared(clock, gradients(graph), mock.patch.object(lightgcn, "mean_of", stacked))


def keyed(graph: BipartiteGraph, clock: Clock) -> dict[str, Any] | None:
    """Top 100 of a block of 2,048 users: ties put in order afterwards, and as part of a key."""
    if clock.device.type != "cuda":
        return None
    draw = rng("keys", device=graph.device)
    tables = (
        torch.randn(n, 64, generator=draw, device=graph.device) for n in (2048, graph.num_items)
    )
    user, item = tables
    scores = user @ item.T
    before, after = clock.by_turns(lambda: topk(scores, 100), lambda: keyed_topk(scores, 100))
    pairs = zip(topk(scores, 100), keyed_topk(scores, 100), strict=True)
    difference = max(float((a != b).any(1).double().mean()) for a, b in pairs)
    seconds = {"before": before, "after": after, "times faster": before / after}
    return seconds | {"difference": difference}


def compiled(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """The listwise loss of 1,024 lists and its gradient, as it is and by ``torch.compile``."""
    device = graph.device
    if without_kernels(device) is not None:  # what Triton needs, the compiler needs as well
        return {}
    draw = rng("compiled", device=device)
    listed = torch.randn(1024, 40, generator=draw, device=device, requires_grad=True)
    rest = torch.randn(1024, generator=draw, device=device, requires_grad=True)
    real = torch.rand(1024, 40, generator=draw, device=device) < 0.9
    quick = torch.compile(losses.relaxed_ranking)

    def run(loss: Callable[..., Tensor]) -> list[Tensor]:
        value = loss(listed, rest, real)
        return [value.detach(), *torch.autograd.grad(value, (listed, rest))]

    old, new = run(losses.relaxed_ranking), run(quick)
    before = clock.on_device(lambda: run(losses.relaxed_ranking))
    after = clock.on_device(lambda: run(quick))
    gaps = [((a - b).abs().max() / a.abs().max()) for a, b in zip(old, new, strict=True)]
    row = {"before": before, "after": after, "times faster": before / after}
    return {"listwise loss by torch.compile": row | {"difference": float(torch.stack(gaps).max())}}


def tensor_cores(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Sums of LWC-KD over all entities for 1,024 anchors: products of float32, and of TF32."""
    if graph.device.type != "cuda":
        return {}
    draw, num = rng("cores", device=graph.device), graph.num_users + graph.num_items
    anchor, entities = (
        torch.randn(n, 128, generator=draw, device=graph.device) / 4 for n in (1024, num)
    )
    weight = torch.rand(1024, 2, generator=draw, device=graph.device)
    entities.requires_grad_()

    def run() -> list[Tensor]:
        loss = lwckd._LogPartitions.apply(anchor, entities, weight, graph.num_users)
        return [loss.detach(), *torch.autograd.grad(loss, entities)]

    plain = mock.patch.object(lwckd, "_tensor_cores", contextlib.nullcontext)
    return {"LWC-KD on tensor cores, 1,024 anchors": compared(clock, run, plain)}
