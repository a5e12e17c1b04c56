"""Distillation methods on citeULike as their papers measure them, and all of them side by side.

    python benchmarks/citeulike.py --data DATA --only speed
    python benchmarks/citeulike.py --data DATA --only loo td concf hetcomp --jobs 8 --limit 480

DATA holds ``citeulike_loo``, ``citeulike_td_loo``, ``citeulike_concf_split`` and
``citeulike_hetcomp_split`` (``train.csv.gz``, ``valid.csv.gz``, ``test.csv.gz`` each) and, for the
table, ``yelp_ccd``. A protocol's teachers are trained once and shared by its cells; one seed of
everything is done before the next begins, and finished cells are not run again. After every cell
the results so far go to ``benchmarks/results/citeulike.json``, with the tables and what is missing
in ``citeulike.md`` beside. Seconds an epoch are those of a device alone only where ``jobs`` is 1.
Settings are the authors'; nothing is tuned here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path
from typing import Any

from citeulike_protocols import PROTOCOLS, UNTAUGHT, Cell, Protocol
from citeulike_tables import collect, write

RESULTS = Path(__file__).parent / "results" / "citeulike.json"


def cells(options: argparse.Namespace) -> list[Cell]:
    """All cells in the order they are wanted: teachers, then one seed of everything at a time."""
    found = []
    for name in options.only:
        protocol = PROTOCOLS[name]
        source = "presplit" if protocol.folder == "yelp_ccd" else "split"
        data = {"source": source, "path": str(options.data / protocol.folder)}
        shared = {"data": data, "device": options.device, "reference": False, **protocol.config}
        rows = {k: v for k, v in protocol.methods.items() if k in (options.methods or [k])}
        taught = {k: v for k, v in rows.items() if _taught(v)}
        for teacher, models in protocol.teachers.items():
            models = [_fitted(model, options) for model in models]
            # The student of a teachers' cell is not read: one epoch of it.
            idle = {"model": {"backbone": "MF", "dim": 1}, "fit": {"epochs": 1}}
            own = {"seed": 0, "student": idle, "teachers": models, "base_weight": 1.0}
            cell = Cell(name, "teachers", "idle", teacher, 0, shared | own)
            found += [cell] if taught else []
            found += _students(name, protocol, taught, cell, shared, options)
        alone = {k: v for k, v in rows.items() if k not in taught}
        found += _students(name, protocol, alone, None, shared, options)
    return sorted(found, key=lambda cell: (cell.seed, cell.row != "teachers"))


def _taught(own: Mapping[str, Any]) -> bool:
    return not {*own.get("distill", [])} <= {"none", "concf"}


def _students(
    name: str,
    protocol: Protocol,
    methods: Mapping[str, Mapping[str, Any]],
    teachers: Cell | None,
    shared: Mapping[str, Any],
    options: argparse.Namespace,
) -> Iterator[Cell]:
    given, teacher, needs = {}, UNTAUGHT, None
    if teachers is not None:
        teacher, needs = teachers.teacher, teachers.name
        given = {"teachers_from": str(options.to / teachers.name)}
    for row, own in methods.items():
        for student, model in protocol.student.items():
            config = {**shared, **own, **given}
            config["student"] = _fitted(model, options)
            for seed in range(options.seeds):
                yield Cell(name, row, student, teacher, seed, config | {"seed": seed}, needs)


def _fitted(model: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    fit = model["fit"] | {"record": not options.step_by_step}
    if options.epochs:
        fit["epochs"] = min(options.epochs, fit["epochs"])
    return {**model, "fit": fit}


def run(cell: Cell, folder: Path, jobs: int) -> str:
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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{cell.name}.jobs").write_text(str(jobs))
    try:
        distill(from_dict(DistillConfig, cell.config), place, resume=True)
    except (ValueError, RuntimeError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def finished(tasks: Iterable[Cell], options: argparse.Namespace) -> Iterator[tuple[Cell, str]]:
    """Cells and what went wrong, as they end; none starts before its teachers or past the limit."""
    end = time.perf_counter() + (options.limit or float("inf"))
    waiting, done, running = [*tasks], {None}, {}
    with _executor(options.jobs) as pool:
        while True:
            while len(running) < options.jobs and time.perf_counter() < end:
                ready = next((cell for cell in waiting if cell.needs in done), None)
                if ready is None:
                    break
                waiting.remove(ready)
                running[pool.submit(run, ready, options.to, options.jobs)] = ready
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, error = running.pop(future), future.result()
                done |= set() if error else {cell.name}
                yield cell, error


def _executor(jobs: int) -> Executor:
    if jobs == 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def commands(options: argparse.Namespace) -> dict[str, str]:
    """How each protocol of this run is measured again."""
    words = ["python benchmarks/citeulike.py --data DATA"]
    given = {name: vars(options)[name] for name in ("seeds", "epochs", "jobs", "limit")}
    words += [f"--{name} {value}" for name, value in given.items() if value]
    words += ["--methods", *map(repr, options.methods)] if options.methods else []
    return {name: f"{' '.join(words)} --only {name!r}" for name in options.only}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the tables."""
    options = _options(arguments)
    tasks, failures = cells(options), []
    started = time.perf_counter()
    for number, (cell, error) in enumerate(finished(tasks, options), 1):
        seconds = time.perf_counter() - started
        print(f"{seconds:6.0f} s {number}/{len(tasks)} {cell.name} {error}", flush=True)
        failures += [cell.name] if error else []
        write(options.results, commands(options), tasks, collect(tasks, options.to))
    missing = write(options.results, commands(options), tasks, collect(tasks, options.to))
    print(f"{options.results}: {len(missing)} not measured, {len(failures)} failed here")
    return bool(failures)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data folders")
    parser.add_argument(
        "--to", type=Path, default=Path("runs/citeulike"), help="folder of the runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file of the results")
    names = [name for name in PROTOCOLS if name != "speed"]
    parser.add_argument("--only", nargs="*", default=names, choices=[*PROTOCOLS], help="protocols")
    parser.add_argument("--methods", nargs="*", help="rows to run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="no training is longer; 0 as given")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the device")
    parser.add_argument("--limit", type=float, default=0, help="seconds after which none starts")
    parser.add_argument("--step-by-step", action="store_true", help="record no CUDA graphs")
    options = parser.parse_args(arguments)
    if "speed" in options.only and options.jobs > 1:
        parser.error("'speed' is measured alone; leave --jobs at 1")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
