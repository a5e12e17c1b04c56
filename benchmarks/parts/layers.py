"""One layer of message passing beside what it has to move at least, a part of ``speed.py``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from parts.clock import Clock
from torch import Tensor
from torch_geometric.nn import LGConv

from ccdgraph.data import skewed_interactions
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.sparse import SWITCH

DIM = 64


@lru_cache(maxsize=3)
def graph_of(sizes: tuple[int, int, int], device: torch.device) -> BipartiteGraph:
    """A skewed graph, its CSR and normalisation made."""
    rows = skewed_interactions(*sizes)
    graph = BipartiteGraph.from_interactions(rows, *sizes[:2]).to(device)
    graph.propagate(torch.zeros(graph.num_nodes, 1, device=device))
    return graph


@contextmanager
def torch_product() -> Iterator[None]:
    """Within, sparse products are torch's on every device."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    yield
    del os.environ[SWITCH]
    if before is not None:
        os.environ[SWITCH] = before


def propagation(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """One layer through the CSR, through PyG's default, and what gathering alone has to move.

    Launched one by one and, on a CUDA device, recorded and replayed as training does it.
    """
    device = graph.device
    x = torch.randn(graph.num_nodes, DIM, device=device, requires_grad=True)
    num_edges = graph.edge_index.size(1)
    large, other = torch.randn(2, 2**27, device=device)
    bandwidth = (
        2
        * large.numel()
        * large.element_size()
        / clock.on_device(lambda: other.copy_(large), times=3)
    )
    gradient = torch.randn(x.shape, device=device)
    plain, conv = graph.edge_index.as_tensor(), LGConv().to(device)

    def both(layer: Callable[[Tensor], Tensor]) -> None:
        torch.autograd.grad(layer(x), x, gradient)

    @torch.no_grad()
    def forward(layer: Callable[[Tensor], Tensor]) -> None:
        layer(x)

    found = {
        "directed edges": num_edges,
        "copy bytes/s": bandwidth,
        "gather floor": num_edges * DIM * 4 / bandwidth,
    }
    for name, work in (("forward", forward), ("forward and backward", both)):
        ours, pyg = (
            lambda work=work: work(graph.propagate),
            lambda work=work: work(lambda x: conv(x, plain)),
        )
        eager, peer = clock.by_turns(ours, pyg)
        found |= {
            f"CSR {name}": clock.on_device(ours) if device.type == "cuda" else eager,
            f"PyG LGConv {name}": peer,
        }
        if device.type == "cuda":
            with torch_product():
                by_torch = clock.on_device(ours)
            found |= {f"CSR {name}, launched alone": eager, f"CSR {name}, torch": by_torch}
    return found


@torch.no_grad()
def edges(graph: BipartiteGraph, clock: Clock) -> dict[str, list[float]]:
    """One layer on graphs of 50 rows for each user and item, as the embeddings outgrow a cache."""
    found: dict[str, list[float]] = {"MB of embeddings": [], "ns an edge": []}
    for size in (10_000, 20_000, 40_000, 100_000):
        large = graph_of((size, size, 50 * size), clock.device)
        x = torch.randn(large.num_nodes, DIM, device=clock.device)
        seconds = clock.on_device(lambda graph=large, x=x: graph.propagate(x))
        found["MB of embeddings"].append(x.numel() * x.element_size() / 1e6)
        found["ns an edge"].append(1e9 * seconds / large.edge_index.size(1))
    return found
