"""Online distillation when the teacher is biased: into which score, from how old a teacher.

A stream whose preferences drift is learnt by a teacher whose scores are then wrong in a planted
way: too confident, and raised by ``--lift`` for a fifth of the items. Students learn from its
stored labels, on the served score (direct) or on an auxiliary head, from a teacher that goes with
the stream or is frozen, 0 to 3 blocks behind; with ``--sweep``, less biased teachers as well.
Weights are chosen on validation rows of other seeds. On Yelp nothing is planted: the teacher is as
biased as it is.

    python benchmarks/online.py --to benchmarks/results/online.json
    python benchmarks/online.py --data yelp --path FOLDER --to benchmarks/results/online_yelp.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from online_world import (
    FIRST,
    LAGS,
    METRIC,
    TEACHERS,
    Measured,
    World,
    config,
    learn,
    make_world,
)
from scipy import stats

from ccdgraph.bench.paired import holm, wilcoxon
from ccdgraph.calibration import reliability
from ccdgraph.continual import OnlineConfig
from ccdgraph.distill.labels import StoreReader

AHEAD = 1000  # seeds of the streams on which weights are chosen lie above it
WEIGHTS = (0.005, 0.02, 0.05, 0.1, 0.2)
YELP = {"blocks": 5, "k": 100, "backbone": "LightGCN", "slope": 1.0, "lift": 0.0, "sweep": []}
Cell = tuple[str, str, int] | tuple[str, str, int, float]
INTO = {"direct": "served", "auxiliary": "auxiliary"}


def choose_weights(options: argparse.Namespace, lift: float) -> dict[str, float]:
    """The weight with the best validation recall, for each kind of student, on other streams."""
    found: dict[str, dict[float, list[float]]] = {kind: {} for kind in INTO}
    for seed in range(AHEAD, AHEAD + options.choose):
        with tempfile.TemporaryDirectory() as folder:
            world = make_world(options, seed, Path(folder), lift)
            for kind, weight in itertools.product(INTO, WEIGHTS):
                settings = student_of(options, world, kind, "updated", 0, weight)
                found[kind].setdefault(weight, []).append(learn(world, settings).valid)
    means = {k: {w: statistics.mean(v) for w, v in by.items()} for k, by in found.items()}
    return {kind: max(by, key=by.__getitem__) for kind, by in means.items()}


def student_of(
    options: argparse.Namespace, world: World, kind: str, teacher: str, lag: int, weight: float
) -> OnlineConfig:
    """Settings of the student of a cell."""
    return config(
        options,
        options.student,
        labels=str(world.store),
        into=INTO[kind],
        freeze=TEACHERS[teacher],
        lag=lag,
        weight=weight,
    )


def cells() -> Iterator[tuple[str, str, int]]:
    """Kind of student, teacher and lag."""
    return itertools.product(INTO, TEACHERS, LAGS)


def read_seconds(world: World) -> float:
    """Seconds in which one student opens, checks and pads its labels of all blocks."""
    reader, started = StoreReader(world.store), time.perf_counter()
    for block in world.stream.blocks[1:]:
        reader(block)
    return time.perf_counter() - started


def cell_figures(own: Sequence[Measured], alone: Sequence[Measured]) -> dict[str, Any]:
    """Means over seeds, and the gap to no distillation by block."""
    blocks = own[0].recall
    gap = {
        str(b): statistics.mean(
            float(o.recall[b].mean() - a.recall[b].mean()) for o, a in zip(own, alone, strict=True)
        )
        for b in blocks
    }
    recall, ece = [float(o.users.mean()) for o in own], [o.table().ece for o in own]
    return {METRIC: recall, "ece": ece, "gap by block": gap}


def compare(first: Sequence[Measured], second: Sequence[Measured]) -> dict[str, float]:
    """Differences of the first: recall by user of every seed, ECE by seed."""
    difference = pd.concat(
        [a.users - b.users for a, b in zip(first, second, strict=True)], ignore_index=True
    )
    ece = [[m.table().ece for m in side] for side in (first, second)]
    return {
        METRIC: float(difference.mean()),
        f"p {METRIC}": wilcoxon(difference),
        "ece": statistics.mean(ece[0]) - statistics.mean(ece[1]),
        "p ece": float(stats.ttest_rel(*ece).pvalue) if len(first) > 1 else 1.0,
        "pairs": len(difference),
    }


def corrected(tests: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Holm's correction over the cells, for each quantity."""
    for name in (f"p {METRIC}", "p ece"):
        for test, p in zip(tests.values(), holm([t[name] for t in tests.values()]), strict=True):
            test[f"corrected {name}"] = p
    return tests


def curve(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """Predicted and observed shares of all seeds together, for a reliability plot."""
    pairs = [pair for m in measured for pair in m.pairs.values()]
    table = reliability(*(torch.cat(part) for part in zip(*pairs, strict=True)))
    filled = table.count > 0
    return {
        name: getattr(table, name)[filled].tolist() for name in ("predicted", "observed", "count")
    }


def students(
    options: argparse.Namespace, lift: float, wanted: Sequence[Cell]
) -> tuple[dict[Any, list[Measured]], dict[str, Any]]:
    """Every wanted student on every seed, one without a teacher, and what was chosen and spent.

    A cell without a weight has the chosen one.
    """
    weights = choose_weights(options, lift)
    found: dict[Any, list[Measured]] = {}
    costs = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            world = make_world(options, seed, Path(folder), lift)
            found.setdefault("alone", []).append(learn(world, config(options, options.student)))
            for cell in wanted:
                weight = cell[3] if len(cell) == 4 else weights[cell[0]]
                settings = student_of(options, world, *cell[:3], weight)
                found.setdefault(cell, []).append(learn(world, settings))
            costs.append({**world.seconds, "read": read_seconds(world)})
    return found, {"weights": weights, "seconds": cost_figures(costs)}


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Every cell at the full bias, and the newest teacher at the others."""
    found, about = students(options, options.lift, list(cells()))
    alone = found.pop("alone")
    lifts = sorted({*options.sweep, options.lift}) if options.sweep else []
    names = {cell: "/".join(map(str, cell)) for cell in found}
    pairs = {f"{t}/{lag}": (t, lag) for t, lag in itertools.product(TEACHERS, LAGS)}
    return {
        **about,
        "no distillation": cell_figures(alone, alone),
        "cells": {names[cell]: cell_figures(own, alone) for cell, own in found.items()},
        "auxiliary - direct": corrected(
            {
                name: compare(found["auxiliary", *pair], found["direct", *pair])
                for name, pair in pairs.items()
            }
        ),
        "distilled - alone": corrected({names[c]: compare(own, alone) for c, own in found.items()}),
        "reliability": {
            "alone": curve(alone),
            **{kind: curve(found[kind, "updated", 0]) for kind in INTO},
        },
        "sweep": {str(lift): swept(options, lift) for lift in lifts},
    }


def swept(options: argparse.Namespace, lift: float) -> dict[str, Any]:
    """Students of the newest teacher at another bias, with the chosen weights and with each."""
    newest = [(kind, "updated", 0) for kind in INTO]
    each = [(*cell, weight) for weight in WEIGHTS for cell in newest]
    found, about = students(options, lift, [*newest, *each])
    alone = found.pop("alone")
    return {
        "weights": about["weights"],
        "no distillation": cell_figures(alone, alone),
        **{cell[0]: cell_figures(found[cell], alone) for cell in newest},
        "auxiliary - direct": compare(*(found[cell] for cell in reversed(newest))),
        "auxiliary - direct by weight": corrected(
            {
                str(weight): compare(*(found[(*cell, weight)] for cell in reversed(newest)))
                for weight in WEIGHTS
            }
        ),
    }


def cost_figures(costs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of a teacher, and what four students cost as a multiple of one's."""
    mean = {name: statistics.mean(cost[name] for cost in costs) for name in costs[0]}
    four, one = (mean["label"] + n * mean["read"] for n in (4, 1))
    return {**mean, "four students / one student": four / one}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = {
        **{"seeds": 5, "choose": 2, "users": 800, "items": 500, "rows": 40_000, "blocks": 7},
        **{"teacher": 32, "student": 8, "k": 50, "epochs": 8},
        **{"drift": 0.3, "slope": 1.5, "lift": 4.0},
    }
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--sweep", type=float, nargs="*", default=[0.0, 2.0, 8.0])
    parser.add_argument("--backbone", default="MF")
    parser.add_argument("--data", choices=("planted", "yelp"), default="planted")
    parser.add_argument("--path", type=Path, help="folder with the blocks of Yelp")
    parser.add_argument("--device", default="auto", help="cpu or cuda; by default what there is")
    parser.add_argument("--to", type=Path, help="JSON file to write")
    if parser.parse_known_args()[0].data == "yelp":
        parser.set_defaults(**YELP)
    options = parser.parse_args()
    if (options.data == "yelp") != (options.path is not None):
        parser.error("'--data yelp' and '--path' go together; name the folder of its blocks")
    if options.blocks < FIRST:
        parser.error(f"'--blocks' is {options.blocks}; expected at least {FIRST}")
    about = {**vars(options), "to": None, "path": options.path and options.path.name}
    result = {"about": about, **experiment(options)}
    for name, cell in {"no distillation": result["no distillation"], **result["cells"]}.items():
        recall, ece = (statistics.mean(cell[key]) for key in (METRIC, "ece"))
        print(f"{name:<24}{METRIC} {recall:.4f}  ECE {ece:.4f}")
    print(json.dumps(result["auxiliary - direct"], indent=1), result["weights"], result["seconds"])
    if options.to:
        options.to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
