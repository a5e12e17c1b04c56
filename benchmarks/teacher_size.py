"""How large a teacher has to be: the student's gain by the width of its teacher, unbiased.

The stream and the student of benchmarks/online.py; labels go on the served score, with the weight
that is best on validation rows of other seeds, chosen for each width.

    python benchmarks/teacher_size.py --to benchmarks/results/teacher_size.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from online import choose_weights, learn_cells
from parts.online_tasks import ALONE, Work
from parts.online_world import METRIC, Measured

from ccdgraph.bench.paired import holm, wilcoxon


def students(options: argparse.Namespace) -> tuple[list[Measured], list[Measured], float]:
    """Students with and without the teacher of ``options``, by seed, and the chosen weight."""
    newest = ("direct", "updated", 0)
    with tempfile.TemporaryDirectory() as folder, Work(options, Path(folder)) as work:
        weight = choose_weights(options, work, 0.0)["direct"]
        cell = (*newest, weight)
        found = learn_cells(options, work, 0.0, [(cell,)])
        return found[cell], found[ALONE], weight


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Gains by multiple of the student's width."""
    found: dict[str, dict[str, Any]] = {}
    for multiple in options.multiples:
        options.teacher = multiple * options.student
        taught, alone, weight = students(options)
        gaps = [a.users - b.users for a, b in zip(taught, alone, strict=True)]
        found[str(multiple)] = {
            "weight": weight,
            "student": [float(m.users.mean()) for m in taught],
            "alone": [float(m.users.mean()) for m in alone],
            "gain": float(pd.concat(gaps).mean()),
            "p": wilcoxon(pd.concat(gaps, ignore_index=True)),
        }
    for cell, p in zip(found.values(), holm([c["p"] for c in found.values()]), strict=True):
        cell["corrected p"] = p
    return {METRIC: found}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = {
        **{"seeds": 5, "choose": 2, "users": 400, "items": 300, "rows": 24_000, "blocks": 7},
        **{"student": 8, "k": 50, "epochs": 8, "drift": 0.3, "slope": 1.0},
    }
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    options.backbone, options.data, options.device = "MF", "planted", "cpu"
    options.base, options.patience, options.jobs, options.validate = 3, 0, 1, 1
    options.batch, options.lr, options.weight_decay = 1024, 1e-2, 1e-4
    about = {name: value for name, value in vars(options).items() if name != "to"}
    result = {"about": about, **experiment(options)}
    for name, cell in result[METRIC].items():
        mean = statistics.mean(cell["student"])
        print(f"x{name}: {mean:.4f}, {cell['gain']:+.4f}, corrected p {cell['corrected p']:.1e}")
    if options.to:
        options.to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
