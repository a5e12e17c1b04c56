"""Distillation methods on citeULike as their papers measure them, and all of them side by side.

    python benchmarks/citeulike.py --data DATA --only speed
    python benchmarks/citeulike.py --data DATA --only loo td concf hetcomp --jobs 8 --limit 480

DATA holds ``citeulike_loo``, ``citeulike_td_loo``, ``citeulike_concf_split`` and
``citeulike_hetcomp_split`` (``train.csv.gz``, ``valid.csv.gz``, ``test.csv.gz`` each) and, for the
table, ``yelp_ccd``. A protocol's teachers are trained once and shared by its cells; one seed of
everything is done before the next begins, and cells that the file of the results holds as they are
configured now, or the folder of the runs, are not run again. After every cell the results so far go
to ``benchmarks/results/citeulike.json``, with the tables and what is missing in ``citeulike.md``
beside; several calls may share the file. With several ``jobs`` the processes take the devices of
``CUDA_VISIBLE_DEVICES`` in turn. Seconds an epoch are those of a device alone only where ``jobs``
is 1. Settings are the authors'; those of the rows that say "tuned" are chosen on validation rows
with a seed that is not reported.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path
from typing import Any

from parts.citeulike_cells import cells, left, settled
from parts.citeulike_protocols import PROTOCOLS, Cell
from parts.citeulike_tables import cell_name, collect, recorded, write

RESULTS = Path(__file__).parent / "results" / "citeulike.json"


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


def finished(tasks: Sequence[Cell], options: argparse.Namespace) -> Iterator[tuple[Cell, str]]:
    """Cells and what went wrong, as they end; none starts before what it needs or past the limit.

    Cells that the file of the results holds are not run.
    """
    end = time.perf_counter() + (options.limit or float("inf"))
    waiting = left(tasks, gather(tasks, options))
    done, running = {cell.name for cell in tasks} - {cell.name for cell in waiting}, {}
    with _executor(options.jobs) as pool:
        while True:
            while len(running) < options.jobs and time.perf_counter() < end:
                ready = next((cell for cell in waiting if {*cell.needs} <= done), None)
                if ready is None:
                    break
                waiting.remove(ready)
                if ready.trials:
                    rows = gather(tasks, options)
                    ready = next(c for c in settled(tasks, rows) if c.name == ready.name)
                running[pool.submit(run, ready, options.to, options.jobs)] = ready
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, error = running.pop(future), future.result()
                done |= set() if error else {cell.name}
                yield cell, error


def gather(tasks: Sequence[Cell], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of cells that are measured as they are configured now, from the file and the folder."""

    def rows(tasks: Sequence[Cell]) -> list[dict[str, Any]]:
        fresh = collect(tasks, options.to)
        held = [] if options.again else recorded(options.results, tasks)
        names = {cell_name(row) for row in fresh}
        return [*fresh, *(row for row in held if cell_name(row) not in names)]

    return rows(settled(tasks, rows(tasks)))


def _executor(jobs: int) -> Executor:
    if jobs == 1:
        return ThreadPoolExecutor(1)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, _take_device, (context.Value("i", 0),))


def _take_device(counter: Any) -> None:
    """One of the devices that are visible, in turn, before torch looks for them."""
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    if len(visible) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]


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

    def save() -> list[dict[str, Any]]:
        rows = gather(tasks, options)
        return write(options.results, commands(options), settled(tasks, rows), rows)

    for number, (cell, error) in enumerate(finished(tasks, options), 1):
        seconds = time.perf_counter() - started
        print(f"{seconds:6.0f} s {number}/{len(tasks)} {cell.name} {error}", flush=True)
        failures += [cell.name] if error else []
        save()
    print(f"{options.results}: {len(save())} not measured, {len(failures)} failed here")
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
    parser.add_argument("--again", action="store_true", help="run what the file holds as well")
    parser.add_argument("--step-by-step", action="store_true", help="record no CUDA graphs")
    options = parser.parse_args(arguments)
    if "speed" in options.only and options.jobs > 1:
        parser.error("'speed' is measured alone; leave --jobs at 1")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
