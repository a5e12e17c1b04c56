"""A teacher that is refreshed before every block, regressed as it is and turned back.

The teacher learns everything so far from nothing whenever a block arrives, so its embeddings start
in other axes each time. The student goes on from the last block, on the new block's rows and on the
teacher's embeddings; its linear maps go on as well. Measured are recall, and the share of the
teacher's variance that the maps miss before they learn a block. The weight of either student is
that with the best recall on validation rows of other seeds.

    python benchmarks/alignment.py --to benchmarks/results/alignment.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ccdgraph.bench.paired import holm, wilcoxon
from ccdgraph.config import rng
from ccdgraph.continual import FineTune, FineTuneConfig, FullBatch, FullBatchConfig
from ccdgraph.continual.config import BaseConfig
from ccdgraph.continual.scene import Scene
from ccdgraph.data import Stream, synthetic_stream
from ccdgraph.distill import Regression
from ccdgraph.distill.alignment import aligned
from ccdgraph.evaluate import evaluate, seen_items
from ccdgraph.nn import Backbone, BackboneConfig, Embeddings
from ccdgraph.train import FitConfig, Part, embed

METRIC = "recall@20"
AHEAD = 1000  # seeds of the streams on which weights are chosen lie above it
WEIGHTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
KINDS = ("as they are", "aligned")


class Student(FineTune):
    """Fine-tuning beside regression of a teacher, which is another one for every block."""

    def __init__(
        self, config: FineTuneConfig, teachers: Sequence[Embeddings], weight: float, seed: int
    ) -> None:
        super().__init__(config, seed=seed)
        self.teachers, self.weight = teachers, weight
        self.term: Regression | None = None
        self.missed: list[float] = []  # before every block from the second with a teacher on

    def parts(self, scene: Scene, previous: Backbone) -> Sequence[Part]:
        """The regression, with the maps of the last block."""
        if not self.weight:
            return ()
        index, config = scene.block.index, self.config
        draw = rng(self.seed, index, "maps")
        term = Regression(self.teachers[index], config.backbone.dim, generator=draw)
        if self.term is not None:
            term.load_state_dict(self.term.state_dict())
            model = scene.grow(previous, config.init, config.topk)
            self.missed.append(missed(term, embed(model, scene.known.graph)))
        self.term = term
        return (Part(term, None, self.weight),)


@torch.no_grad()
def missed(term: Regression, out: Embeddings) -> float:
    """Share of the variance of the teacher's tables that the maps leave over, their mean."""
    sides = ((term.user, out.user, term.teacher.user), (term.item, out.item, term.teacher.item))
    shares = [
        float((teacher - side(own)).square().sum() / (teacher - teacher.mean(0)).square().sum())
        for side, own, teacher in sides
    ]
    return statistics.mean(shares)


@dataclass(frozen=True)
class World:
    """A stream, and its teachers by kind and block."""

    stream: Stream
    seed: int
    teachers: dict[str, list[Embeddings]]


@dataclass(frozen=True)
class Measured:
    """A student: recall of every user on test rows, mean on validation rows, and what it missed."""

    users: pd.Series
    valid: float
    missed: list[float]


def settings(options: argparse.Namespace, dim: int) -> dict[str, Any]:
    """What teacher and student have in common."""
    fit = FitConfig(epochs=options.epochs, lr=1e-2)
    base = BaseConfig(1024, 1, FitConfig(epochs=3 * options.epochs, lr=1e-2))
    return {"backbone": BackboneConfig("MF", dim), "base": base, "batch_size": 1024, "fit": fit}


def make_world(options: argparse.Namespace, seed: int) -> World:
    """The stream of a seed, and its teachers, every one turned to the one before."""
    stream = synthetic_stream(
        *(options.users, options.items, options.rows),
        num_blocks=options.blocks,
        drift=options.drift,
        base=0.4,
        seed=seed,
    )
    teacher = FullBatch(FullBatchConfig(**settings(options, options.teacher)), seed=seed)
    plain: list[Embeddings] = []
    turned: list[Embeddings] = []
    for block in stream:
        out = teacher.update(block)
        assert isinstance(out, Embeddings)
        plain.append(out)
        turned.append(aligned(out, turned[-1]) if turned else out)
    return World(stream, seed, dict(zip(KINDS, (plain, turned), strict=True)))


def learn(options: argparse.Namespace, world: World, kind: str, weight: float) -> Measured:
    """A student of the stream, measured right after each block."""
    config = FineTuneConfig(**settings(options, options.student))
    student = Student(config, world.teachers[kind], weight, world.seed)
    found, valid = [], []
    for block in world.stream:
        out = student.update(block)
        if block.index == 0:
            continue
        place = {"tested": block.index, "learnt": block.index}
        seen = seen_items(world.stream, **place)
        found.append(evaluate(out, block.test, seen, ks=(20,)).to_frame().set_index("user")[METRIC])
        known = seen_items(world.stream, **place, split="valid")
        valid.append(evaluate(out, block.valid, known, ks=(20,)).mean()[METRIC])
    users = pd.concat(found).groupby(level=0).mean()
    return Measured(users, statistics.mean(valid), student.missed)


def choose(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Validation recall of every weight by kind, and the best weight."""
    worlds = [make_world(options, AHEAD + seed) for seed in range(options.choose)]
    chosen = {}
    for kind in KINDS:
        valid = {
            weight: statistics.mean(learn(options, world, kind, weight).valid for world in worlds)
            for weight in WEIGHTS
        }
        chosen[kind] = {"weight": max(valid, key=lambda weight: valid[weight]), "valid": valid}
    return chosen


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Recall and what is missed by student and seed, and tests over the users of all seeds."""
    chosen = choose(options)
    weights = {"none": 0.0, **{kind: chosen[kind]["weight"] for kind in KINDS}}
    found: dict[str, list[Measured]] = {name: [] for name in weights}
    for seed in range(options.seeds):
        world = make_world(options, seed)
        for name, weight in weights.items():
            found[name].append(learn(options, world, name if weight else KINDS[0], weight))
    pairs = (("aligned", "as they are"), ("aligned", "none"), ("as they are", "none"))
    tests = {f"{a} - {b}": compare(found[a], found[b]) for a, b in pairs}
    for test, p in zip(tests.values(), holm([t["p"] for t in tests.values()]), strict=True):
        test["corrected p"] = p
    refreshed = {
        name: {
            "weight": weights[name],
            METRIC: summary([float(run.users.mean()) for run in runs]),
            "missed": summary([statistics.mean(run.missed) for run in runs if run.missed]),
        }
        for name, runs in found.items()
    }
    return {"chosen": chosen, "refreshed": refreshed, "differences": tests}


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and standard deviation over seeds, if there are any."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "sd": deviation, "by seed": list(values)}


def compare(first: Sequence[Measured], second: Sequence[Measured]) -> dict[str, float]:
    """Mean difference over users, and whether it is one."""
    gaps = pd.concat(
        [a.users - b.users for a, b in zip(first, second, strict=True)], ignore_index=True
    )
    return {"difference": float(gaps.mean()), "p": wilcoxon(gaps), "users": len(gaps)}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = {
        **{"seeds": 10, "choose": 5, "users": 400, "items": 300, "rows": 24_000, "blocks": 7},
        **{"teacher": 32, "student": 8, "epochs": 8, "drift": 0.3},
    }
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    command = "python benchmarks/alignment.py --to benchmarks/results/alignment.json"
    about = {**vars(options), "to": None, "command": command}
    result = {"about": about, **experiment(options)}
    for name, test in result["differences"].items():
        print(f"{name}: {test['difference']:+.4f}, corrected p {test['corrected p']:.1e}")
    if options.to:
        options.to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
