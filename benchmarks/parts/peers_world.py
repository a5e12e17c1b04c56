"""What the peers of ``peers.py`` have in common: rows, initial tables, and what is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.data import Events, Vocabulary, skewed_interactions, split_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.stream import Block
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import Embeddings

DIM, BATCH, LR = 64, 2048, 5e-3


def world(users: int, items: int, rows: int, device: torch.device) -> Block:
    """One block of skewed interactions, a fifth of them held out, no pair twice.

    In PyG's graph a repeated pair would weigh more, in the others' it does not.
    """
    drawn = skewed_interactions(users, items, rows)
    key, place = torch.unique(drawn.user * items + drawn.item, return_inverse=True)
    first = torch.full_like(key, len(drawn))
    first.scatter_reduce_(0, place, torch.arange(len(drawn)), reduce="amin")
    drawn = drawn[first.sort().values]
    events = Events.from_rows(drawn, Vocabulary(range(users)), Vocabulary(range(items)))
    return split_stream(events, base=1.0, num_blocks=0, ratios=(0.8, 0.0, 0.2))[0].to(device)


def wait(device: torch.device) -> float:
    """The clock once the device is idle; of the process alone where that is the CPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(device: torch.device, run: Callable[[], Any]) -> int:
    """Most bytes of tensors that ``run`` adds on a CUDA device; 0 on a CPU."""
    if device.type == "cpu":
        run()
        return 0
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def figures(
    block: Block, seconds: list[float], embeddings: Callable[[], Embeddings]
) -> dict[str, Any]:
    """Seconds of an epoch and of a full ranking with metrics, and the recall that it finds."""
    device = block.train.user.device
    seen = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    taken = []
    for _ in range(3):
        started = wait(device)
        found = evaluate(embeddings(), block.test, seen.user_items, ks=(20,))
        taken.append(wait(device) - started)
    return {
        "seconds an epoch": statistics.median(seconds[1:]),
        "epochs": seconds,
        "seconds an evaluation": statistics.median(taken),
        "recall@20": found.mean()["recall@20"],
    }


def tables(block: Block) -> tuple[Tensor, Tensor]:
    """Initial values of users and of items that every LightGCN starts from."""
    draw, sizes = rng("peers", "tables"), (block.num_users, block.num_items)
    user, item = (0.1 * torch.randn(size, DIM, generator=draw) for size in sizes)
    return user, item
