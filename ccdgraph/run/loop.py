"""The loop of a run: learn a block, measure, store, go on; from wherever it was cut off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError
from ccdgraph.config import class_path
from ccdgraph.continual import CCD
from ccdgraph.data import Stream, fingerprint
from ccdgraph.nn import Embeddings
from ccdgraph.run import folder as files
from ccdgraph.run.config import RunConfig, difference, plain_dict
from ccdgraph.run.record import Row, RunResult, measure
from ccdgraph.run.source import check_stream, open_stream, tested_blocks

# The settings that trained base teachers depend on, so that another run may take them over.
TEACHERS_NEED = ("teachers", "base", "mask")


class Watcher:
    """What a run tells while it goes on; override what is of interest."""

    def epoch(self, label: str, done: int, total: int) -> None:
        """Called after every epoch of the :class:`Stage` with this label."""

    def stage(self, label: str, seconds: float) -> None:
        """Called when a stage is finished and stored."""

    def block(self, result: RunResult) -> None:
        """Called when a block is learnt and measured, with the results so far."""


@dataclass(frozen=True)
class Stage:
    """A stage of a run, planned.

    Args:
        block: the block.
        name: ``"student"``, ``"teacher 0"``, ``"generation"``, ..., ``"evaluation"``.
        epochs: epochs at most.
        rows: training rows of an epoch, or test rows to measure.
    """

    block: int
    name: str
    epochs: int
    rows: int

    @property
    def label(self) -> str:
        """How ``on_progress`` calls it."""
        return f"block {self.block} {self.name}"


def plan(config: RunConfig, stream: Stream) -> list[Stage]:
    """Every stage of a run in order."""
    ccd, stages = config.ccd, []
    for block in stream:
        rows, later = len(block.train), block.index > 0
        epochs = ccd.teacher.fit.epochs * ccd.teacher.update if later else ccd.base.fit.epochs
        if later:
            passes = ccd.update.fit.epochs
            stages.append(Stage(block.index, "student", passes, rows))
        for member in range(len(ccd.teachers)):
            stages.append(Stage(block.index, f"teacher {member}", epochs, rows))
        stages.append(Stage(block.index, "generation", ccd.generation.fit.epochs, rows))
        held_out = sum(len(stream[j].test) for j in tested_blocks(stream, block.index))
        stages.append(Stage(block.index, "evaluation", 1, held_out))
    return stages


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    stream: Stream | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> RunResult:
    """Learn a stream with CCD, measure after every block, and leave everything in ``folder``.

    Stopped at any moment and called again with ``resume``, it goes on after the last finished
    stage; on the CPU the results are bitwise those of a run that was never stopped.

    Args:
        config: what to run.
        folder: where the files go; new or empty unless ``resume``.
        stream: the data, instead of ``config.data``.
        resume: go on with the run in ``folder``, if there is one.
        watcher: is told how far the run is.

    Raises:
        ValueError: the configuration, the data, the folder or a checkpoint cannot be used.
    """
    stream = open_stream(config.data) if stream is None else stream
    check_stream(config, stream)
    running = _Run(config, Path(folder), stream, watcher or Watcher())
    running.begin(resume)
    return running.finish()


def pick_device(name: str) -> torch.device:
    """The device that ``"auto"``, ``"cpu"`` or ``"cuda"`` means here.

    Raises:
        ValueError: there is no such device.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("'device' is 'cuda', but torch finds none; use 'auto' or 'cpu'")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


class _Run:
    """A run in progress: the learner, the rows so far, and where both are stored."""

    def __init__(self, config: RunConfig, folder: Path, stream: Stream, watcher: Watcher) -> None:
        self.config, self.folder, self.stream, self.watcher = config, folder, stream, watcher
        self.fingerprint = fingerprint(stream)
        self.device = pick_device(config.device)
        self.placed = stream.to(self.device)
        self.strategy = CCD(config.ccd, seed=config.seed)
        self.strategy.on_progress = watcher.epoch
        self.strategy.on_stage = self._after_stage
        self.rows: list[Row] = []
        self.peak: dict[str, int] = {}
        self.complete = False

    def begin(self, resume: bool) -> None:
        """Open the folder; take up what is in it, or the teachers of another run."""
        shared, stored = self.config.teachers_from, self.folder / files.CHECKPOINT
        if shared is not None and not checkpoint.exists(stored):
            self._load(Path(shared) / files.TEACHERS, TEACHERS_NEED)
        files.open_folder(self.folder, self.config, self.fingerprint, resume=resume)
        if checkpoint.exists(stored):
            meta = self._load(stored, tuple(self._meta()["ccd"]))
            self.rows = files.read_rows(self.folder, until=self.strategy.index)
            about = files.read_about(self.folder)
            self.strategy.seconds = about.get("seconds", {}) | meta["seconds"]
            self.peak = meta["peak_memory"]
        self._write_about()

    def finish(self) -> RunResult:
        """Learn and measure what is left."""
        for block in self.placed:
            if block.index > self.result().learnt:
                self.strategy.update(block)
                self._measure(block.index)
                self.watcher.block(self.result())
        self.complete = True
        self._write_about()
        return self.result()

    def result(self) -> RunResult:
        """The results so far."""
        student, teachers = self.strategy.student, self.strategy.teachers
        models = {"student": [student] if student else [], "teacher": teachers}
        parameters = {
            name: sum(value.numel() for model in members for value in model.parameters())
            for name, members in models.items()
        }
        rows, seconds = tuple(self.rows), dict(self.strategy.seconds)
        return RunResult(self.config, len(self.stream), rows, seconds, parameters)

    def _measure(self, learnt: int) -> None:
        started, scorers = time.perf_counter(), self.strategy.scorers()
        rows, users = measure(scorers, self.placed, learnt, self.config)
        self.rows += rows
        if self.config.evaluate.per_user and users:  # under "next" the last block has none
            files.write_users(self.folder / "per_user" / f"after_{learnt}.parquet", users)
        served = scorers["student"]
        assert isinstance(served, Embeddings), "CCD serves embeddings"
        files.write_served(self.folder, served, self.placed, learnt)
        self.strategy.seconds[f"{learnt}/evaluation"] = time.perf_counter() - started
        files.write_rows(self.folder, self.rows)
        self._write_about()
        self._tell(f"{learnt}/evaluation")

    def _after_stage(self) -> None:
        tensors, meta = self.strategy.state(), self._meta()
        at = (self.strategy.index, self.strategy.done)
        if at == (0, len(self.config.ccd.teachers)):  # before the other: stored again if it fails
            checkpoint.save(self.folder / files.TEACHERS, tensors, meta)
        checkpoint.save(self.folder / files.CHECKPOINT, tensors, meta)
        self._tell(next(reversed(self.strategy.seconds)))

    def _tell(self, key: str) -> None:
        self.watcher.stage("block {} {}".format(*key.split("/")), self.strategy.seconds[key])

    def _write_about(self) -> None:
        more = {
            "complete": self.complete,
            "device": str(self.device),
            "peak_memory": self._peak(),
        }
        files.write_about(self.folder, self.result(), self.stream, self.fingerprint, more)

    def _meta(self) -> dict[str, Any]:
        last = self.stream[-1]
        return {
            "class_path": class_path(CCD),
            "sizes": {"users": last.num_users, "items": last.num_items},
            "fingerprint": self.fingerprint,
            "ccd": plain_dict(self.config.ccd),
            "seconds": self.strategy.seconds,
            "peak_memory": self._peak(),
        }

    def _peak(self) -> dict[str, int]:
        now = files.peak_memory()
        return self.peak | {name: max(now[name], self.peak.get(name, 0)) for name in now}

    def _load(self, folder: Path, need: Sequence[str]) -> dict[str, Any]:
        """Takes up a checkpoint whose settings ``need`` of CCD and whose data are this run's."""
        tensors, meta = checkpoint.load(folder)
        mine = self._meta()
        checkpoint.check(meta, class_path=mine["class_path"], sizes=mine["sizes"])
        theirs = {name: meta["ccd"].get(name) for name in need}
        differs = difference(theirs, {name: mine["ccd"][name] for name in need})
        if meta["fingerprint"] != self.fingerprint:
            differs = f"'fingerprint' = {meta['fingerprint'][:12]}, not {self.fingerprint[:12]}"
        if differs:
            raise CheckpointError(f"'{folder}' is of another run: {differs}")
        try:
            self.strategy.restore(tensors, self.placed.blocks)
        except (KeyError, RuntimeError) as error:  # a backbone's own code has changed
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"'{folder}' does not fit the models of this run: {reason}"
            ) from error
        return meta
