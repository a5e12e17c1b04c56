"""Online distillation when the teacher is biased: into which score, from how old a teacher.

A stream whose preferences drift is learnt by a teacher whose scores are then wrong in a planted
way: too confident, and raised by ``--lift`` for a fifth of the items. Students learn from its
stored labels, on the served score (direct) or on an auxiliary head, from a teacher that goes with
the stream or is frozen, 0 to 3 blocks behind; with ``--sweep``, less biased teachers as well.
Weights are chosen on validation rows of other seeds. On Yelp nothing is planted: the teacher is as
biased as it is.

    python benchmarks/online.py --to benchmarks/results/online.json
    python benchmarks/online.py --data yelp --path FOLDER --to benchmarks/results/online_yelp.json

With ``--jobs`` pieces of the work run side by side, with the same results; with ``--runs`` a second
call goes on where one was cut off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from parts.online_figures import cell_figures, compare, corrected, cost_figures, curve
from parts.online_tasks import ALONE, INTO, Cell, Task, Work, halves
from parts.online_world import FIRST, LAGS, METRIC, TEACHERS, Measured

AHEAD = 1000  # seeds of the streams on which weights are chosen lie above it
WEIGHTS = (0.005, 0.02, 0.05, 0.1, 0.2)
YELP = {
    **{"blocks": 5, "k": 100, "backbone": "LightGCN", "teacher": 64, "epochs": 10, "base": 4},
    **{"batch": 8192, "lr": 2e-2, "weight_decay": 6e-3, "slope": 1.0, "lift": 0.0, "sweep": []},
    "validate": 0,  # the validation of an epoch costs twice the epoch on a CPU
}


def choose_weights(options: argparse.Namespace, work: Work, lift: float) -> dict[str, float]:
    """The weight with the best validation recall, for each kind of student, on other streams."""
    seeds = range(AHEAD, AHEAD + options.choose)
    tasks = {
        (kind, weight): [Task(lift, seed, ((kind, "updated", 0, weight),)) for seed in seeds]
        for kind, weight in itertools.product(INTO, WEIGHTS)
    }
    work.do(list(itertools.chain(*tasks.values())))
    means: dict[str, dict[float, float]] = {kind: {} for kind in INTO}
    for (kind, weight), own in tasks.items():
        values = [measured.valid for task in own for measured in work.found(task).values()]
        means[kind][weight] = statistics.mean(values)
    return {kind: max(by, key=by.__getitem__) for kind, by in means.items()}


def learn_cells(
    options: argparse.Namespace, work: Work, lift: float, groups: Iterable[Sequence[Cell]]
) -> dict[Cell, list[Measured]]:
    """The students of every cell by seed, and one without a teacher; a group is one piece."""
    every = [(ALONE,), *(tuple(group) for group in groups)]
    tasks = [Task(lift, seed, group) for group in every for seed in range(options.seeds)]
    work.do(tasks)
    found: dict[Cell, list[Measured]] = {}
    for task in tasks:
        for cell, measured in work.found(task).items():
            found.setdefault(cell, []).append(measured)
    return found


def experiment(options: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Every cell at the full bias, and the newest teacher at the others."""
    lift = options.lift
    seeds = [*range(options.seeds), *range(AHEAD, AHEAD + options.choose)]
    work.do([Task(lift, seed) for seed in seeds])  # all at once: they take longest
    weights = choose_weights(options, work, lift)
    groups = (half for kind in INTO for half in halves(kind, weights[kind]))
    found = learn_cells(options, work, lift, groups)
    alone = found.pop(ALONE)
    lifts = sorted({*options.sweep, lift}) if options.sweep else []
    by = {cell[:3]: own for cell, own in found.items()}
    versus = partial(compare, shared=options.data == "yelp")
    pairs = {f"{t}/{lag}": (t, lag) for t, lag in itertools.product(TEACHERS, LAGS)}
    cells = {f"{kind}/{pair}": by[kind, *pairs[pair]] for kind in INTO for pair in pairs}
    return {
        "weights": weights,
        "seconds": cost_figures([work.found(Task(lift, seed)) for seed in range(options.seeds)]),
        "no distillation": cell_figures(alone, alone),
        "cells": {name: cell_figures(own, alone) for name, own in cells.items()},
        "auxiliary - direct": corrected(
            {
                name: versus(by["auxiliary", *pair], by["direct", *pair])
                for name, pair in pairs.items()
            }
        ),
        "distilled - alone": corrected({name: versus(own, alone) for name, own in cells.items()}),
        "reliability": {
            "alone": curve(alone),
            **{kind: curve(by[kind, "updated", 0]) for kind in INTO},
        },
        "sweep": {str(lift): swept(options, work, lift) for lift in lifts},
    }


def swept(options: argparse.Namespace, work: Work, lift: float) -> dict[str, Any]:
    """Students of the newest teacher at another bias, with the chosen weights and with each."""
    weights = choose_weights(options, work, lift)
    each = [((kind, "updated", 0, weight),) for weight in WEIGHTS for kind in INTO]
    found = learn_cells(options, work, lift, each)
    alone = found.pop(ALONE)
    newest = {kind: found[kind, "updated", 0, weights[kind]] for kind in INTO}
    versus = partial(compare, shared=options.data == "yelp")
    by = {w: [found[kind, "updated", 0, w] for kind in ("auxiliary", "direct")] for w in WEIGHTS}
    return {
        "weights": weights,
        "no distillation": cell_figures(alone, alone),
        **{kind: cell_figures(own, alone) for kind, own in newest.items()},
        "auxiliary - direct": versus(newest["auxiliary"], newest["direct"]),
        "auxiliary - direct by weight": corrected(
            {str(weight): versus(*sides) for weight, sides in by.items()}
        ),
    }


def numbers() -> dict[str, float]:
    """Options with a number, and their defaults."""
    return {
        **{"seeds": 5, "choose": 2, "users": 800, "items": 500, "rows": 40_000, "blocks": 7},
        **{"teacher": 32, "student": 8, "k": 50, "epochs": 8, "base": 3, "patience": 0},
        **{"batch": 1024, "lr": 1e-2, "weight_decay": 1e-4, "validate": 1},
        **{"drift": 0.3, "slope": 1.5, "lift": 4.0, "jobs": 1},
    }


def read_options() -> argparse.Namespace:
    """The command line; Yelp has defaults of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in numbers().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--sweep", type=float, nargs="*", default=[0.0, 2.0, 8.0])
    parser.add_argument("--backbone", default="MF")
    parser.add_argument("--data", choices=("planted", "yelp"), default="planted")
    parser.add_argument("--path", type=Path, help="folder with the blocks of Yelp")
    parser.add_argument("--device", default="auto", help="cpu or cuda; by default what there is")
    parser.add_argument("--runs", type=Path, help="folder of what is done, to go on from")
    parser.add_argument("--to", type=Path, help="JSON file to write")
    if parser.parse_known_args()[0].data == "yelp":
        parser.set_defaults(**YELP)
    options = parser.parse_args()
    if (options.data == "yelp") != (options.path is not None):
        parser.error("'--data yelp' and '--path' go together; name the folder of its blocks")
    if options.blocks < FIRST:
        parser.error(f"'--blocks' is {options.blocks}; expected at least {FIRST}")
    return options


def main() -> None:
    """Run what is missing, print, write."""
    options = read_options()
    with (
        tempfile.TemporaryDirectory() as folder,
        Work(options, options.runs or Path(folder)) as work,
    ):
        found = experiment(options, work)
    about = vars(options) | {"to": None, "runs": None, "path": options.path and options.path.name}
    result = {"about": about, **found}
    for name, cell in {"no distillation": result["no distillation"], **result["cells"]}.items():
        recall, ece = (statistics.mean(cell[key]) for key in (METRIC, "ece"))
        print(f"{name:<24}{METRIC} {recall:.4f}  ECE {ece:.4f}")
    print(json.dumps(result["auxiliary - direct"], indent=1), result["weights"], result["seconds"])
    if options.to:
        options.to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
