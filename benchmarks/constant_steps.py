"""Whether a step takes longer the more blocks there have been.

    python benchmarks/constant_steps.py --to benchmarks/results/constant_steps.json

Blocks of the same number of rows over the same users and items, each on its own graph: a method
that keeps its memory flat takes as long in the last block as in the first. An epoch is timed from
one progress call to the next, in seconds of the processor, and divided by its steps; the fastest
epoch of the first third of the blocks stands beside that of the last third, as other work on the
machine only ever adds to it. ``FullBatch`` is there as what grows: its steps are as short, but an
epoch has more of them with every block.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ccdgraph.checkpoint import atomic_write_text
from ccdgraph.config import rng
from ccdgraph.continual import CCD, CCDConfig, Strategy
from ccdgraph.continual.config import GenerationConfig
from ccdgraph.data import Block, Interactions
from ccdgraph.nn import BackboneConfig
from ccdgraph.run.folder import hardware, versions
from ccdgraph.run.learner import settings_class, strategy_class
from ccdgraph.train import FitConfig

NAMES = (
    *("FineTune", "ExperienceReplay", "SPMF", "ADER", "GraphSAIL", "Contrastive", "PISA"),
    *("ReLoop2", "CCD", "FullBatch"),
)
BATCH, USERS, ITEMS = 256, 500, 400


def blocks(num: int, rows: int) -> list[Block]:
    """Random rows among the same users and items; nothing is held out."""
    found, draw = [], rng("constant steps")
    for index in range(num):
        pair = [torch.randint(size, (rows,), generator=draw) for size in (USERS, ITEMS)]
        train = Interactions(*pair)
        found.append(Block(index, train, train[:0], train[:0], USERS, ITEMS))
    return found


def learner(name: str, epochs: int) -> Strategy:
    """A strategy with the same backbone, batch and epochs, on each block's own graph."""
    cls: Any = strategy_class(name)
    fit, model = FitConfig(epochs=epochs, lr=1e-3), BackboneConfig(dim=8)
    if cls is CCD:
        base = CCDConfig()
        return CCD(
            CCDConfig(
                student=model, teachers=(model,), graph="block",
                base=replace(base.base, batch_size=BATCH, fit=fit),
                generation=GenerationConfig(
                    batch_size=BATCH, rest_items=100, rest_users=100, fit=fit
                ),
                update=replace(base.update, batch_size=BATCH, fit=fit),
                teacher=replace(base.teacher, batch_size=BATCH, fit=fit),
            )
        )  # fmt: skip
    config = settings_class(cls)
    base = replace(config().base, batch_size=BATCH, negatives=1, fit=fit)
    return cls(config(backbone=model, base=base, graph="block", batch_size=BATCH, fit=fit))


def epochs_of(strategy: Strategy, stream: list[Block]) -> dict[str, dict[int, float]]:
    """Seconds of the fastest epoch, by stage and block."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    since = time.process_time()

    def tell(label: str, done: int, total: int) -> None:
        nonlocal since
        now, (_, block, stage) = time.process_time(), label.split(" ", 2)
        if done > 1:  # the first epoch has what comes before it
            best = found[stage].get(int(block), float("inf"))
            found[stage][int(block)] = min(best, now - since)
        since = now

    strategy.on_progress = tell
    for block in stream:
        strategy.update(block)
    return found


def row(seconds: dict[int, float], steps: list[int], width: int) -> dict[str, Any]:
    """Milliseconds of a step in the first and in the last blocks after the base."""
    each = [1e3 * seconds[k] / steps[k] for k in sorted(seconds) if k > 0]
    first, last = min(each[:width]), min(each[-width:])
    return {
        "first blocks, ms": first,
        "last blocks, ms": last,
        "last / first": last / first,
        "steps of an epoch, first": steps[1],
        "steps of an epoch, last": steps[-1],
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stream, table = blocks(options.blocks + 1, options.rows), {}
    distinct: set[tuple[int, int]] = set()
    sizes, whole = [], []
    for block in stream:
        distinct |= set(zip(block.train.user.tolist(), block.train.item.tolist(), strict=True))
        sizes.append(-(-len(block.train) // BATCH))
        whole.append(-(-len(distinct) // BATCH))
    for name in options.only:
        for stage, seconds in epochs_of(learner(name, options.epochs), stream).items():
            steps = whole if name == "FullBatch" else sizes
            table[f"{name}, {stage}"] = row(seconds, steps, max(1, options.blocks // 3))
            print(f"{name}, {stage}", table[f"{name}, {stage}"], flush=True)
    about = {
        "command": "python benchmarks/constant_steps.py",
        "blocks": options.blocks,
        "hardware": hardware(),
        "versions": versions(),
    }
    if options.to:
        text = json.dumps({"about": about, "steps": table}, indent=1) + "\n"
        atomic_write_text(options.to, text)


if __name__ == "__main__":
    main()
