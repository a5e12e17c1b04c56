"""Distillation methods on citeULike as their papers measure them, and all of them side by side.

    python benchmarks/citeulike.py --data DATA --to runs/citeulike --jobs 8

DATA holds ``citeulike_loo``, ``citeulike_td_loo``, ``citeulike_concf_split`` and
``citeulike_hetcomp_split`` (``train.csv.gz``, ``valid.csv.gz``, ``test.csv.gz`` each) and, for the
table, ``yelp_ccd``. A protocol's teachers are trained once and shared by its cells; finished cells
are not run again. Results go to ``benchmarks/results/citeulike.json`` with the table of them,
``citeulike.md``, beside. Settings are the authors'; nothing is tuned here.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).parent / "results" / "citeulike.json"
ALL = (
    *("none", "rrd", "ir", "sampled-rrd", "ir-rrd", "de", "de-rrd", "phr", "ftd", "htd"),
    *("rd", "cd", "concf", "hetcomp"),
)
# Methods whose step draws from a generator of its own or asks for sizes: recording it would fail in
# every epoch. Those that draw anew in every epoch would be recorded as often.
UNRECORDED = {*ALL} - {"none", "phr", "ftd"}


def learner(backbone: str, dim: int, **fit: Any) -> dict[str, Any]:
    """A model and its training, as a table of the configuration."""
    return {"model": {"backbone": backbone, "dim": dim}, "fit": fit}


BPR = {"lr": 1e-3, "weight_decay": 1e-3}
LONG = {"epochs": 400, "patience": 20, **BPR}
MIXED = {"epochs": 100, "patience": 20, "lr": 5e-3, "weight_decay": 1e-4}
TEAM = [learner(name, 64, **MIXED) for name in ("MF", "CML", "LightGCN", "MultVAE")]
SHORT = {"epochs": 50, "lr": 5e-3, "weight_decay": 1e-4}


@dataclass(frozen=True)
class Protocol:
    """One way to measure, its teachers, and the methods measured in it.

    Args:
        folder: of the data.
        metric: split and metric of the table.
        config: what all cells share.
        student: the student.
        teachers: by name; each is a list of models.
        methods: by the label of a row.
        known: published values by row, for comparison.
        source: where those stand.
    """

    folder: str
    metric: tuple[str, str]
    config: dict[str, Any]
    student: dict[str, dict[str, Any]]
    teachers: dict[str, list[dict[str, Any]]]
    methods: dict[str, dict[str, Any]]
    known: dict[str, float] = field(default_factory=dict)
    source: str = ""


PROTOCOLS = {
    "loo": Protocol(
        "citeulike_loo",
        ("test", "hit@5"),
        {"measure": {"protocol": "sampled", "ks": [5, 10, 20], "select": "hit@5"}},
        {"MF": learner("MF", 20, **LONG)},
        {"MF 200": [learner("MF", 200, **LONG)]},
        {m: {"distill": [m]} for m in ("none", "de", "sampled-rrd", "ir-rrd", "phr")},
        {"none": 0.4486, "de": 0.4773, "sampled-rrd": 0.4698, "ir-rrd": 0.4947, "phr": 0.4878},
        "the authors' logs, one seed; PHR: hyperkdma, five seeds",
    ),
    "td": Protocol(
        "citeulike_td_loo",
        ("test", "recall@50"),
        {"measure": {"ks": [10, 20, 50], "select": "last", "hide": "others"}},
        {"MF": learner("MF", 20, epochs=101, **BPR)},
        {"MF 200": [learner("MF", 200, epochs=101, **BPR)]},
        {m: {"distill": [m]} for m in ("none", "ftd", "htd")},
        {"none": 0.2276, "ftd": 0.2516, "htd": 0.2744},
        "the authors' logs at epoch 100, one seed",
    ),
    "concf": Protocol(
        "citeulike_concf_split",
        ("valid", "recall@50"),
        {"measure": {"ks": [20, 50], "select": "last", "hide": "others"}, "base_weight": 0.0},
        {"MF": learner("MF", 64, epochs=191, lr=0.01, weight_decay=1e-5)},
        {"none": []},
        {
            "plain MF": {"base_weight": 1.0},
            "without consensus": {"distill": ["concf"], "methods": {"concf": {"consensus": 0.0}}},
            "concf": {"distill": ["concf"]},
        },
        {"without consensus": 0.307, "concf": 0.368},
        "the authors' figures at epoch 190, one seed, read off to .002",
    ),
    "hetcomp": Protocol(
        "citeulike_hetcomp_split",
        ("test", "recall@50"),
        {
            "measure": {"ks": [20, 50], "select": "recall@50", "hide": "others", "every": 10},
            "base_weight": 0.0,
        },
        {"MF": learner("MF", 6, epochs=201, lr=1e-3, weight_decay=1e-5)},
        {"mixed": TEAM},
        {
            "none": {"base_weight": 1.0},
            "ensemble directly": {"distill": ["rrd"], "methods": {"rrd": {"k": 100}}},
            "hetcomp": {"distill": ["hetcomp"]},
        },
    ),
}
for _name, _folder in (("citeulike", "citeulike_hetcomp_split"), ("yelp", "yelp_ccd")):
    PROTOCOLS[f"table {_name}"] = Protocol(
        _folder,
        ("test", "recall@20"),
        {"measure": {"ks": [20, 50], "select": "recall@20", "every": 5}},
        {"MF": learner("MF", 20, **SHORT), "LightGCN": learner("LightGCN", 20, **SHORT)},
        {"MF 200": [learner("MF", 200, **MIXED)], "mixed": TEAM},
        {method: {"distill": [method]} for method in ALL},
    )


@dataclass(frozen=True)
class Cell:
    """One distillation: where it stands in the tables, and its configuration."""

    protocol: str
    row: str
    student: str
    teacher: str
    seed: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Its folder."""
        words = (self.protocol, self.row, self.student, self.teacher, str(self.seed))
        return "-".join(words).replace(" ", "_")


def cells(options: argparse.Namespace) -> tuple[list[Cell], list[Cell]]:
    """The trainings of teachers, and the distillations that read them."""
    first, second = [], []
    for name in options.only or PROTOCOLS:
        protocol = PROTOCOLS[name]
        source = "presplit" if protocol.folder == "yelp_ccd" else "split"
        data = {"source": source, "path": str(options.data / protocol.folder)}
        shared = {"data": data, "device": options.device, "reference": False} | protocol.config
        for teacher, models in protocol.teachers.items():
            models = [_shortened(model, options, recorded=True) for model in models]
            # The student of a teachers' cell is not read: one epoch of it.
            idle = {"model": {"backbone": "MF", "dim": 1}, "fit": {"epochs": 1}}
            config = shared | {"seed": 0, "student": idle, "teachers": models, "base_weight": 1.0}
            own = Cell(name, "teachers", "idle", teacher, 0, config)
            if models:
                first.append(own)
            second += _students(protocol, own, shared, options)
    return first, second


def _students(
    protocol: Protocol, teachers: Cell, shared: dict[str, Any], options: argparse.Namespace
) -> Iterable[Cell]:
    untaught = teachers.teacher != next(iter(protocol.teachers))  # the first teacher's cells do
    for row, own in protocol.methods.items():
        names = own.get("distill", [])
        if options.methods and row not in options.methods:
            continue
        if untaught and (not names or names[0] in ("none", "concf")):
            continue
        for student, model in protocol.student.items():
            recorded = not UNRECORDED & {*names}
            taught = (
                {}
                if not teachers.config["teachers"]
                else {"teachers_from": str(options.to / teachers.name)}
            )
            config = shared | own | taught
            config["student"] = _shortened(model, options, recorded=recorded)
            for seed in range(options.seeds):
                place = (teachers.protocol, row, student, teachers.teacher, seed)
                yield Cell(*place, config | {"seed": seed})


def _shortened(
    model: dict[str, Any], options: argparse.Namespace, *, recorded: bool
) -> dict[str, Any]:
    fit = model["fit"] | {"record": recorded}
    if options.epochs:
        fit["epochs"] = min(options.epochs, fit["epochs"])
    return model | {"fit": fit}


def run(cell: Cell, folder: Path) -> str:
    """Run one cell in this process, unless it is finished; what went wrong, or nothing."""
    import warnings

    import torch

    from ccdgraph.config import from_dict
    from ccdgraph.run import DistillConfig, distill

    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    torch.set_float32_matmul_precision("high")  # TF32, where the device has it
    torch.set_num_threads(1)
    place = folder / cell.name
    if (place / "run.json").exists():
        return ""
    try:
        distill(from_dict(DistillConfig, cell.config), place, resume=True)
    except (ValueError, RuntimeError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def run_all(tasks: Sequence[Cell], folder: Path, jobs: int) -> list[str]:
    """Run cells, ``jobs`` at a time; the failures."""
    started, failures = time.perf_counter(), []
    for done, (cell, error) in enumerate(_finished(tasks, folder, jobs), 1):
        seconds = time.perf_counter() - started
        print(f"{seconds:6.0f} s {done}/{len(tasks)} {cell.name} {error}", flush=True)
        failures += [f"{cell.name}: {error}"] if error else []
    return failures


def _finished(tasks: Sequence[Cell], folder: Path, jobs: int) -> Iterator[tuple[Cell, str]]:
    """Cells and what went wrong, as they end."""
    if jobs == 1:
        yield from ((cell, run(cell, folder)) for cell in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {pool.submit(run, cell, folder): cell for cell in tasks}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def collect(tasks: Iterable[Cell], folder: Path) -> list[dict[str, Any]]:
    """What the finished cells measured."""
    found = []
    for cell in tasks:
        path = folder / cell.name / "run.json"
        if path.exists():
            about = json.loads(path.read_text())
            model = about["models"]["teacher" if cell.row == "teachers" else "student"]
            fit = about["models"]["student"]
            row = {k: getattr(cell, k) for k in ("protocol", "row", "student", "teacher", "seed")}
            row |= {"metrics": model["metrics"], "hardware": about["hardware"]}
            row |= {"device": about["device"], "agreement": about["agreement"]}
            names = ("parameters", "epochs", "best_epoch", "seconds_per_epoch", "peak_memory")
            found.append(row | ({} if cell.row == "teachers" else {k: fit[k] for k in names}))
    return found


def markdown(commands: dict[str, str], rows: Sequence[dict[str, Any]]) -> str:
    """One table a protocol, from the rows alone."""
    lines = []
    for name in dict.fromkeys(row["protocol"] for row in rows):
        protocol, own = PROTOCOLS[name], [row for row in rows if row["protocol"] == name]
        split, metric = protocol.metric
        device = ", ".join(sorted({row["hardware"] for row in own}))
        lines += [f"## {name}", "", f"{split} {metric}, {protocol.folder}, {device}:", ""]
        lines += [f"    {commands[name]}", ""]
        if protocol.source:
            lines += [f"Published: {protocol.source}.", ""]
        head = (
            "student",
            "teacher",
            "method",
            metric,
            "sd",
            "seeds",
            "published",
            "s/epoch",
            "MiB",
        )
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        keys = dict.fromkeys((row["student"], row["teacher"], row["row"]) for row in own)
        for key in keys:
            group = [row for row in own if (row["student"], row["teacher"], row["row"]) == key]
            values = [row["metrics"][split][metric] for row in group]
            spread = f"{stdev(values):.4f}" if len(values) > 1 else ""
            known = protocol.known.get(key[2])
            cost = ["", ""]
            if "seconds_per_epoch" in group[0]:
                peak = group[0]["peak_memory"]
                memory = (
                    peak.get("cuda", math.nan) if "cuda" in group[0]["device"] else peak["host"]
                )
                cost = [
                    f"{mean(row['seconds_per_epoch'] for row in group):.3f}",
                    f"{memory / 2**20:.0f}",
                ]
            shown = [
                f"{mean(values):.4f}",
                spread,
                str(len(values)),
                f"{known:.4f}" if known else "",
            ]
            lines.append(f"| {' | '.join([*key, *shown, *cost])} |")
        lines.append("")
    return "\n".join(lines)


def write(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """The results of this run; those of other protocols stay as they were."""
    words = ["python benchmarks/citeulike.py --data DATA"]
    words += [
        f"--{name} {vars(options)[name]}" for name in ("seeds", "epochs") if vars(options)[name]
    ]
    words += ["--methods", *options.methods] if options.methods else []
    mine = {name: f"{' '.join(words)} --only {name!r}" for name in options.only or PROTOCOLS}
    path = options.results
    held = json.loads(path.read_text()) if path.exists() else {"commands": {}, "cells": []}
    cells = [row for row in held["cells"] if row["protocol"] not in mine] + [*rows]
    cells.sort(key=lambda row: [*PROTOCOLS].index(row["protocol"]))
    commands = held["commands"] | mine
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"commands": commands, "cells": cells}, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(commands, cells))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data folders")
    parser.add_argument(
        "--to", type=Path, default=Path("runs/citeulike"), help="folder of the runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file of the results")
    parser.add_argument("--only", nargs="*", choices=[*PROTOCOLS], help="protocols to run")
    parser.add_argument("--methods", nargs="*", help="rows to run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="no training is longer; 0 as given")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    options = parser.parse_args(arguments)
    teachers, students = cells(options)
    failures = run_all(teachers, options.to, options.jobs)
    failures += run_all(students, options.to, options.jobs)
    rows = collect([*teachers, *students], options.to)
    write(options, rows)
    print(f"{len(rows)} cells in {options.results}; {len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())
