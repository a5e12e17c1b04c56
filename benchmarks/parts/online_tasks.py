"""Work of benchmarks/online.py, in pieces that run side by side and are done once.

A piece is a world, or some students of one; each leaves a file, so a second call goes on where one
was cut off. What a piece finds depends on nothing but the options and its own name.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from parts.online_world import LAGS, TEACHERS, World, config, learn_all, make_world, write_whole

from ccdgraph.continual import OnlineConfig
from ccdgraph.distill.labels import StoreReader

Cell = tuple[str, str, int, float]  # kind of student, teacher, lag, weight
ALONE: Cell = ("alone", "", 0, 0.0)
INTO = {"direct": "served", "auxiliary": "auxiliary"}
FREE = {"seeds", "choose", "jobs", "device", "to", "runs", "path", "sweep"}  # change no piece


@dataclass(frozen=True)
class Task:
    """Students of one world, or the world itself when there are none."""

    lift: float
    seed: int
    cells: tuple[Cell, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder and file."""
        words = ["-".join(str(x) for x in cell if x != "") for cell in self.cells] or ["cost"]
        return f"lift-{self.lift}_seed-{self.seed}/{'+'.join(words)}.pt"


def halves(kind: str, weight: float) -> Iterator[tuple[Cell, ...]]:
    """The cells of a kind in two groups, each of which has most of its learning in common."""
    for lags in (LAGS[:2], LAGS[2:]):
        yield tuple((kind, teacher, lag, weight) for lag in lags for teacher in TEACHERS)


def student_of(options: argparse.Namespace, world: World, cell: Cell) -> OnlineConfig:
    """Settings of the student of a cell."""
    kind, teacher, lag, weight = cell
    if cell == ALONE:
        return config(options, options.student)
    source = {"labels": str(world.store), "freeze": TEACHERS[teacher], "lag": lag}
    return config(options, options.student, into=INTO[kind], weight=weight, **source)


def run(options: argparse.Namespace, folder: Path, task: Task) -> None:
    """Do a piece in this process, unless it is done."""
    place = folder / task.name
    if place.exists():
        return
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    torch.set_num_threads(1)  # with more, sums differ by their number
    place.parent.mkdir(parents=True, exist_ok=True)
    world = make_world(options, task.seed, place.parent, task.lift)
    if not task.cells:
        write_whole(place, {**world.seconds, "read": read_seconds(world)})
    else:
        wanted = [student_of(options, world, cell) for cell in task.cells]
        write_whole(place, dict(zip(task.cells, learn_all(world, wanted), strict=True)))


def read_seconds(world: World) -> float:
    """Seconds in which one student opens, checks and pads its labels of all blocks."""
    reader, started = StoreReader(world.store), time.perf_counter()
    for block in world.stream.blocks[1:]:
        reader(block)
    return time.perf_counter() - started


class Work:
    """Processes, and the folder in which they leave what they find.

    Args:
        options: of the benchmark.
        folder: of the files.

    Raises:
        ValueError: the folder holds files of other options.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder, self.started = options, folder, time.perf_counter()
        about = {k: v for k, v in sorted(vars(options).items()) if k not in FREE}
        text, noted = json.dumps(about), folder / "options.json"
        folder.mkdir(parents=True, exist_ok=True)
        if noted.exists() and noted.read_text() != text:
            raise ValueError(
                f"'{folder}' holds work of other options, {noted}; name another folder"
            )
        noted.write_text(text)
        self.pool = executor(options.jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def do(self, tasks: Sequence[Task]) -> None:
        """All that is not done, worlds first."""
        worlds = list(dict.fromkeys(Task(task.lift, task.seed) for task in tasks))
        for stage in (worlds, [task for task in tasks if task.cells]):
            self._stage([task for task in stage if not (self.folder / task.name).exists()])

    def found(self, task: Task) -> dict[Any, Any]:
        """What a piece left."""
        kept: dict[Any, Any] = torch.load(self.folder / task.name, weights_only=False)
        return kept

    def _stage(self, tasks: Sequence[Task]) -> None:
        running = {self.pool.submit(run, self.options, self.folder, task): task for task in tasks}
        for number, future in enumerate(as_completed(running), 1):
            future.result()
            seconds = time.perf_counter() - self.started
            print(f"{seconds:6.0f} s {number}/{len(tasks)} {running[future].name}", flush=True)


def executor(jobs: int) -> Executor:
    """Processes that share the device, or this one."""
    if jobs == 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
