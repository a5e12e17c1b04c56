"""One cell of a suite in its folder: running it, and how it ended."""

from __future__ import annotations

import contextlib
import json
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ccdgraph import checkpoint
from ccdgraph.bench.suite import Cell, digest
from ccdgraph.config import load
from ccdgraph.continual import CCDConfig
from ccdgraph.run import EvaluateConfig, Row, RunConfig, RunResult, Watcher, run
from ccdgraph.run import folder as files
from ccdgraph.run.loop import TEACHERS_NEED
from ccdgraph.run.plain import plain_dict

SECONDS = "seconds.json"


@dataclass(frozen=True)
class Task:
    """A piece of work of its own: a cell, or the teachers that some cells share.

    Args:
        label: in words.
        config: what is run.
        folder: where.
        error: file that says why it failed, if it did.
        teachers: task whose base teachers this one takes over.
        only_teachers: stop once the base teachers are trained.
    """

    label: str
    config: RunConfig
    folder: Path
    error: Path
    teachers: Task | None = None
    only_teachers: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; a folder that cannot be read counts as done."""
        if self.only_teachers:
            return (self.folder / SECONDS).exists()
        try:
            return bool(files.read_about(self.folder).get("complete", False))
        except ValueError:
            return True


def tasks(cells: Sequence[Cell], folder: Path) -> list[Task]:
    """The work of a suite in ``folder``: shared teachers before the cells that need them."""
    found: dict[str, Task] = {}
    for cell in cells:
        teachers = None
        if cell.config.ccd is not None:
            key = teachers_key(cell.config)
            teachers = found.setdefault(
                key,
                Task(
                    f"teachers of {cell.label}",
                    _teaching(cell.config, cell.config.ccd),
                    folder / "teachers" / key,
                    folder / "errors" / f"{key}.json",
                    only_teachers=True,
                ),
            )
        error = folder / "errors" / f"{cell.key}.json"
        found[cell.key] = Task(cell.label, cell.config, cell_folder(folder, cell), error, teachers)
    return list(found.values())


def cell_folder(folder: Path, cell: Cell) -> Path:
    """Where the run of a cell lies."""
    return folder / "cells" / cell.key


def teachers_key(config: RunConfig) -> str:
    """A hash of all that the base teachers of CCD depend on."""
    plain = plain_dict(config)
    need = {name: plain["ccd"][name] for name in TEACHERS_NEED}
    return digest({**need, **{name: plain[name] for name in ("seed", "device", "data")}})


def _teaching(config: RunConfig, ccd: CCDConfig) -> RunConfig:
    """The part of a configuration that base teachers depend on, and nothing else of it."""
    need = CCDConfig(teachers=ccd.teachers, base=ccd.base, mask=ccd.mask)
    return RunConfig(
        config.seed, config.device, config.data, ccd=need, evaluate=EvaluateConfig(ks=(1,))
    )


class _TrainedError(Exception):
    """Raised to end a run of which only the base teachers are wanted."""


class _UntilTrained(Watcher):
    def __init__(self, members: int) -> None:
        self.last = f"block 0 teacher {members - 1}"

    def stage(self, label: str, seconds: float) -> None:
        if label == self.last:
            raise _TrainedError


def perform(task: Task) -> bool:
    """Runs a task from wherever it stopped; whether it succeeded. A failure is written down."""
    try:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if task.only_teachers:
            _train_teachers(task)
        else:
            _run(task)
    except Exception as error:  # whatever a strategy raises, the other cells go on
        fail(task, f"{type(error).__name__}: {error}", traceback.format_exc())
        return False
    task.error.unlink(missing_ok=True)
    return True


def fail(task: Task, message: str, trace: str = "") -> None:
    """Writes down why a task failed."""
    text = json.dumps({"error": " ".join(message.split()), "traceback": trace}, indent=1)
    checkpoint.atomic_write_text(task.error, text + "\n")


def read_error(path: Path) -> str:
    """Why a task failed; empty when it did not."""
    return str(json.loads(path.read_text(encoding="utf-8"))["error"]) if path.exists() else ""


def _train_teachers(task: Task) -> None:
    assert task.config.ccd is not None, "only CCD has teachers to share"
    trained = task.folder / files.TEACHERS
    if not checkpoint.exists(trained):
        watcher = _UntilTrained(len(task.config.ccd.teachers))
        with contextlib.suppress(_TrainedError):
            run(task.config, task.folder, resume=True, watcher=watcher)
    seconds = checkpoint.load(trained)[1]["seconds"]
    checkpoint.atomic_write_text(task.folder / SECONDS, json.dumps(seconds) + "\n")


def _run(task: Task) -> None:
    config = task.config
    if not checkpoint.exists(task.folder / files.CHECKPOINT):
        shutil.rmtree(task.folder, ignore_errors=True)  # nothing was learnt
        if task.teachers is not None:
            config = replace(config, teachers_from=str(task.teachers.folder))
    else:  # the same folder of teachers by another path is no other run
        begun = load(RunConfig, task.folder / files.CONFIG)
        config = replace(config, teachers_from=begun.teachers_from)
    run(config, task.folder, resume=True)


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Args:
        cell: the cell.
        status: ``"finished"``, ``"failed"`` or ``"missing"``.
        error: why it failed.
        about: ``run.json`` of a finished cell.
        rows: its means.
        teacher_seconds: seconds by stage that its shared teachers took.
    """

    cell: Cell
    status: str
    error: str
    about: dict[str, Any]
    rows: tuple[Row, ...]
    teacher_seconds: dict[str, float]

    @property
    def result(self) -> RunResult:
        """The results, as the run itself gave them."""
        about = self.about
        return RunResult(
            self.cell.config,
            about["data"]["blocks"],
            self.rows,
            about["seconds"],
            about["parameters"],
            about["state_bytes"],
        )


def outcome(cell: Cell, folder: Path) -> Outcome:
    """How a cell ended, and what it measured; one that cannot be read has failed."""
    place, error = cell_folder(folder, cell), read_error(folder / "errors" / f"{cell.key}.json")
    try:
        about = files.read_about(place)
        if not about.get("complete", False):
            return Outcome(cell, "failed" if error else "missing", error, {}, (), {})
        rows = files.read_rows(place, until=about["data"]["blocks"] - 1)
        taught = {}
        if cell.config.ccd is not None:
            trained = folder / "teachers" / teachers_key(cell.config) / SECONDS
            if trained.exists():  # they may be removed once their cells are finished
                taught = json.loads(trained.read_text(encoding="utf-8"))
    except (ValueError, KeyError, OSError) as damage:
        return Outcome(cell, "failed", f"unreadable: {damage}", {}, (), {})
    return Outcome(cell, "finished", "", about, tuple(rows), taught)
