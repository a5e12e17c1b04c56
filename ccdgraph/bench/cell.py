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
from ccdgraph.bench.suite import Cell
from ccdgraph.config import load, to_dict
from ccdgraph.run import EvaluateConfig, Row, RunConfig, RunResult, Watcher, run
from ccdgraph.run import folder as files
from ccdgraph.run.learner import strategy_class
from ccdgraph.run.plain import digest, plain_dict

SECONDS = "seconds.json"


@dataclass(frozen=True)
class Task:
    """A piece of work of its own: a cell, or the base models that some cells share.

    Args:
        label: in words.
        config: what is run.
        folder: where.
        error: file that says why it failed, if it did.
        base: task whose base models this one takes over.
        only_base: stop once the base models are trained.
    """

    label: str
    config: RunConfig
    folder: Path
    error: Path
    base: Task | None = None
    only_base: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; a folder that cannot be read counts as done."""
        if self.only_base:
            return (self.folder / SECONDS).exists()
        try:
            return bool(files.read_about(self.folder).get("complete", False))
        except ValueError:
            return True


def tasks(cells: Sequence[Cell], folder: Path) -> list[Task]:
    """The work of a suite in ``folder``: shared base models before the cells that need them."""
    found: dict[str, Task] = {}
    for cell in cells:
        base, key = None, base_key(cell.config)
        if key is not None:
            label, error = f"base of {cell.label}", folder / "errors" / f"{key}.json"
            place = folder / files.BASE / key
            base = Task(label, _base_alone(cell.config), place, error, only_base=True)
            base = found.setdefault(key, base)
        error = folder / "errors" / f"{cell.key}.json"
        found[cell.key] = Task(cell.label, cell.config, cell_folder(folder, cell), error, base)
    return list(found.values())


def cell_folder(folder: Path, cell: Cell) -> Path:
    """Where the run of a cell lies."""
    return folder / "cells" / cell.key


def base_key(config: RunConfig) -> str | None:
    """A hash of all that the base models depend on; nothing where they are not to be shared."""
    needs = strategy_class(config.strategy).BASE_NEEDS
    if not needs:
        return None
    plain, learner = plain_dict(config), plain_dict(config.learner)
    own = {name: plain[name] for name in ("seed", "device", "data")}
    return digest({name: learner[name] for name in needs} | own)


def _base_alone(config: RunConfig) -> RunConfig:
    """The part of a configuration that base models depend on, and nothing else of it."""
    learner, needs = config.learner, strategy_class(config.strategy).BASE_NEEDS
    alone = type(learner)(**{name: getattr(learner, name) for name in needs})
    own = {"ccd": alone} if config.ccd is not None else {"settings": to_dict(alone)}
    place = (config.seed, config.device, config.data, config.strategy)
    return RunConfig(*place, **own, evaluate=EvaluateConfig(ks=(1,)))


class _TrainedError(Exception):
    """Raised to end a run of which only the base models are wanted."""


class _UntilTrained(Watcher):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stage(self, label: str, seconds: float) -> None:
        if checkpoint.exists(self.folder):
            raise _TrainedError


def perform(task: Task) -> bool:
    """Runs a task from wherever it stopped; whether it succeeded. A failure is written down."""
    try:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if task.only_base:
            _train_base(task)
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


def _train_base(task: Task) -> None:
    trained = task.folder / files.BASE
    if not checkpoint.exists(trained):
        with contextlib.suppress(_TrainedError):
            run(task.config, task.folder, resume=True, watcher=_UntilTrained(trained))
    seconds = checkpoint.load(trained)[1]["seconds"]
    checkpoint.atomic_write_text(task.folder / SECONDS, json.dumps(seconds) + "\n")


def _run(task: Task) -> None:
    config = task.config
    if not checkpoint.exists(task.folder / files.CHECKPOINT):
        shutil.rmtree(task.folder, ignore_errors=True)  # nothing was learnt
        if task.base is not None:
            config = replace(config, base_from=str(task.base.folder))
    else:  # the same base models by another path are no other run
        begun = load(RunConfig, task.folder / files.CONFIG)
        config = replace(config, base_from=begun.base_from)
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
        base_seconds: seconds by stage that its shared base models took.
    """

    cell: Cell
    status: str
    error: str
    about: dict[str, Any]
    rows: tuple[Row, ...]
    base_seconds: dict[str, float]

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
        spent, key = {}, base_key(cell.config)
        trained = folder / files.BASE / (key or "none") / SECONDS
        if trained.exists():  # it may be removed once its cells are finished
            spent = json.loads(trained.read_text(encoding="utf-8"))
    except (ValueError, KeyError, OSError) as damage:
        return Outcome(cell, "failed", f"unreadable: {damage}", {}, (), {})
    return Outcome(cell, "finished", "", about, tuple(rows), spent)
