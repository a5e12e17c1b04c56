"""The loop of a run: learn a block, measure, store, go on; from wherever it was cut off."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError
from ccdgraph.config import class_path
from ccdgraph.continual import CCD
from ccdgraph.data import Block, Stream, fingerprint
from ccdgraph.ranking import Scorer
from ccdgraph.run import folder as files
from ccdgraph.run.config import RunConfig
from ccdgraph.run.health import diagnose
from ccdgraph.run.learner import build, count_parameters, pick_device
from ccdgraph.run.plain import difference, plain_dict
from ccdgraph.run.plan import Watcher
from ccdgraph.run.record import Row, RunResult, measure
from ccdgraph.run.signatures import Signature
from ccdgraph.run.source import check_stream, open_stream

logger = logging.getLogger(__name__)


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    stream: Stream | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> RunResult:
    """Learn a stream, measure after every block, and leave everything in ``folder``.

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
    with running.writer:
        running.begin(resume)
        return running.finish()


class _Run:
    """A run in progress: the learner, the rows so far, and where both are stored."""

    def __init__(self, config: RunConfig, folder: Path, stream: Stream, watcher: Watcher) -> None:
        self.config, self.folder, self.stream, self.watcher = config, folder, stream, watcher
        self.writer = checkpoint.Writer()
        self.fingerprint = fingerprint(stream)
        self.device = pick_device(config.device)
        self.placed = stream.to(self.device)
        self.strategy = build(config.strategy, config.learner, config.seed)
        self.strategy.on_progress = self._epoch
        self.strategy.on_stage = self._after_stage
        self.rows: list[Row] = []
        self.signatures: list[Signature] = []
        self.health: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.state_bytes: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self.block, self.learnt, self.staged = -1, -1, False
        self.label, self.since, self.served = "", 0.0, ""
        self.complete = False

    def begin(self, resume: bool) -> None:
        """Open the folder; take up what is in it, or the base models of another run."""
        shared, stored = self.config.base_from, self.folder / files.CHECKPOINT
        if shared is not None and not checkpoint.exists(stored):
            self._load(Path(shared) / files.BASE, self.strategy.BASE_NEEDS, base=True)
        files.open_folder(self.folder, self.config, self.fingerprint, resume=resume)
        if checkpoint.exists(stored):
            self._take_up(self._load(stored, tuple(self._meta()["settings"])))
        self._write_about()

    def _take_up(self, meta: dict[str, Any]) -> None:
        begun, self.learnt = meta["begun"] - 1, meta["learnt"]
        self.rows = files.read_rows(self.folder, until=begun)
        about = files.read_about(self.folder)
        told = {key: s for key, s in about.get("seconds", {}).items() if _block_of(key) <= begun}
        self.seconds = told | meta["seconds"]
        self.state_bytes = meta["state_bytes"]
        self.peak = meta["peak_memory"]
        self.served = about.get("served", "")
        self.health = {k: v for k, v in about.get("health", {}).items() if int(k) <= begun}
        found = (Signature(**signature) for signature in about.get("signatures", []))
        self.signatures = [signature for signature in found if signature.block <= begun]

    def finish(self) -> RunResult:
        """Learn and measure what is left."""
        for block in self.placed:
            if block.index > max(self.result().learnt, self.learnt):
                self._learn(block)
                self._measure(block.index)
                self.watcher.block(self.result())
        self.writer.wait()
        self.complete = True
        self._write_about()
        return self.result()

    def result(self) -> RunResult:
        """The results so far."""
        return RunResult(
            self.config,
            len(self.stream),
            tuple(self.rows),
            dict(self.seconds),
            count_parameters(self.strategy),
            dict(self.state_bytes),
            tuple(self.signatures),
        )

    def _learn(self, block: Block) -> None:
        self.block, self.label, self.since = block.index, "", time.perf_counter()
        # on_stage was called already when the block was begun by an earlier process
        self.staged = any(_block_of(key) == block.index for key in self.seconds)
        self.strategy.update(block)
        if not self.staged:
            self.seconds[f"{block.index}/learning"] = time.perf_counter() - self.since

    def _epoch(self, label: str, done: int, total: int) -> None:
        block = f"block {self.block} "
        self.label = label.removeprefix(block)
        self.watcher.epoch(block + self.label, done, total)

    def _measure(self, learnt: int) -> None:
        started, scorers = time.perf_counter(), self.strategy.scorers()
        rows, users = measure(scorers, self.placed, learnt, self.config)
        self.rows += rows
        if self.config.evaluate.per_user and users:  # under "next" the last block has none
            files.write_users(self.folder / "per_user" / f"after_{learnt}.parquet", users)
        self.served, served = next(iter(scorers.items()))
        self._diagnose(served, learnt)
        files.write_served(self.folder, served, self.placed, learnt)
        self.seconds[f"{learnt}/evaluation"] = time.perf_counter() - started
        if self.config.keep_states:
            kept = self.folder / files.STATES / str(learnt)
            checkpoint.save(kept, self.strategy.state(), self._meta())
        self.writer.wait()  # rows of a block say that all of its stages are stored
        files.write_rows(self.folder, self.rows)
        self._write_about()
        if not self.staged:  # learnt in one piece: stored once it is measured, or learnt again
            self.learnt = learnt
            self._store()
        self._tell(f"{learnt}/evaluation")

    def _diagnose(self, served: Scorer, learnt: int) -> None:
        self.health[str(learnt)], found = diagnose(
            self.served, served, self.placed, learnt, self.result()
        )
        self.signatures = [s for s in self.signatures if s.block < learnt] + found
        for signature in found:
            logger.warning("%s, after block %d: %s", self.folder, learnt, signature.message)

    def _after_stage(self) -> None:
        if isinstance(self.strategy, CCD):
            key = next(reversed(self.strategy.seconds))
            self.seconds[key] = self.strategy.seconds[key]
        else:
            key = f"{self.block}/{self.label or 'learning'}"
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - self.since
        self._store()
        self.staged, self.label, self.since = True, "", time.perf_counter()
        self._tell(key)

    def _store(self) -> None:
        tensors = self.strategy.state()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        self.state_bytes[str(self.block)] = size
        meta = self._meta()
        if self.strategy.has_base:  # before the other: stored again if it fails
            self.writer.save(self.folder / files.BASE, tensors, meta)
        self.writer.save(self.folder / files.CHECKPOINT, tensors, meta)

    def _tell(self, key: str) -> None:
        self.watcher.stage("block {} {}".format(*key.split("/")), self.seconds[key])

    def _write_about(self) -> None:
        more = {
            "complete": self.complete,
            "device": str(self.device),
            "peak_memory": self._peak(),
            "served": self.served,
            "health": self.health,
            "events": [event._asdict() for event in self.strategy.events],
        }
        files.write_about(self.folder, self.result(), self.stream, self.fingerprint, more)

    def _meta(self) -> dict[str, Any]:
        last = self.stream[-1]
        return {
            "class_path": class_path(type(self.strategy)),
            "sizes": {"users": last.num_users, "items": last.num_items},
            "fingerprint": self.fingerprint,
            "settings": plain_dict(self.config.learner),
            "begun": self.block + 1,
            "learnt": self.learnt,
            "seconds": self.seconds,
            "state_bytes": self.state_bytes,
            "peak_memory": self._peak(),
        }

    def _peak(self) -> dict[str, int]:
        now = files.peak_memory()
        return self.peak | {name: max(now[name], self.peak.get(name, 0)) for name in now}

    def _load(self, folder: Path, need: Sequence[str], *, base: bool = False) -> dict[str, Any]:
        """Takes up a checkpoint whose ``need`` of the settings and whose data are this run's."""
        tensors, meta = checkpoint.load(folder)
        mine = self._meta()
        expected = meta["class_path"] if base else mine["class_path"]  # any class may have a base
        checkpoint.check(meta, class_path=expected, sizes=mine["sizes"])
        settings = meta.get("settings", {})
        theirs = {name: settings.get(name) for name in need}
        differs = difference(theirs, {name: mine["settings"][name] for name in need})
        if meta["fingerprint"] != self.fingerprint:
            differs = f"'fingerprint' = {meta['fingerprint'][:12]}, not {self.fingerprint[:12]}"
        if differs:
            raise CheckpointError(f"'{folder}' is of another run: {differs}")
        try:
            take = self.strategy.take_base if base else self.strategy.restore
            take(tensors, self.placed.blocks[: meta["begun"]])
        except (KeyError, RuntimeError) as error:  # a backbone's own code has changed
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"'{folder}' does not fit the models of this run: {reason}"
            ) from error
        return meta


def _block_of(key: str) -> int:
    """The block of a key of ``seconds``, ``"block/stage"``."""
    return int(key.partition("/")[0])
