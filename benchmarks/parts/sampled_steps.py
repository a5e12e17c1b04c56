"""A BPR step of LightGCN on the whole graph and on samples, a part of ``speed.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from parts.clock import Clock

from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn import LightGCN
from ccdgraph.objective import BPR, Views
from ccdgraph.sampling import Triplets

DIM, FANOUT, BATCHES = 64, (10, 10), (256, 1024, 4096, 16_384, 65_536)


def sampled_steps(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Seconds of a BPR step of LightGCN on the whole graph and on samples, by batch size."""
    device = graph.device
    model = LightGCN(graph.num_users, graph.num_items, DIM, generator=rng("speed")).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    draw = rng("speed", device=device)
    whole, around = (Views(graph, fanout, model.depth, draw) for fanout in (None, FANOUT))
    found: dict[str, Any] = {"fanout": list(FANOUT), "batch": [], "whole": [], "sampled": []}
    term = BPR()

    def step(view: Views, batch: Triplets) -> None:
        loss = term(model(view([term], [batch])), batch)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    for size in BATCHES:
        place = torch.randint(len(graph.user), (size,), generator=draw, device=device)
        other = torch.randint(graph.num_items, (size, 1), generator=draw, device=device)
        batch = Triplets(graph.user[place], graph.item[place], other)
        found["batch"].append(size)
        runs = (lambda v=v, b=batch: step(v, b) for v in (whole, around))
        for name, seconds in zip(("whole", "sampled"), clock.by_turns(*runs), strict=True):
            found[name].append(seconds)
    found["Adam on all rows"] = clock(adam.step)
    found["Adam on touched rows"] = clock(sparse_adam(model, BATCHES[1]))
    return found


def sparse_adam(model: LightGCN, batch: int) -> Callable[[], Any]:
    """A step of PyTorch's SparseAdam where a batch has touched two of its rows and 20 around each.

    Weight decay is left out, as SparseAdam has none.
    """
    tables = [torch.nn.Parameter(table.detach().clone()) for table in (model.user, model.item)]
    for table in tables:
        rows = torch.randint(len(table), (1, 22 * batch), device=table.device)
        values = torch.randn(rows.size(1), DIM, device=table.device)
        table.grad = torch.sparse_coo_tensor(rows, values, table.shape, check_invariants=False)
    adam = torch.optim.SparseAdam(tables)
    return adam.step
