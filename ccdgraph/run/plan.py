"""What a run is going to do, and whom it tells how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from ccdgraph.data import Block, Stream
from ccdgraph.run.config import RunConfig
from ccdgraph.run.learner import within
from ccdgraph.run.record import RunResult
from ccdgraph.run.source import tested_blocks
from ccdgraph.train import FitConfig


class Watcher:
    """What a run tells while it goes on; override what is of interest."""

    def epoch(self, label: str, done: int, total: int) -> None:
        """Called after every epoch of the stage with this label."""

    def stage(self, label: str, seconds: float) -> None:
        """Called when a stage is finished and stored."""

    def block(self, result: RunResult) -> None:
        """Called when a block is learnt and measured, with the results so far."""


@dataclass(frozen=True)
class Stage:
    """A stage of a run, planned.

    Args:
        block: the block.
        name: ``"student"``, ``"teacher 0"``, ``"generation"``, ..., ``"evaluation"``; all stages of
            a strategy other than CCD are one, ``"learning"``.
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
    stages = []
    for block in stream:
        stages += _learning(config, block)
        held_out = sum(len(stream[j].test) for j in tested_blocks(stream, block.index))
        stages.append(Stage(block.index, "evaluation", 1, held_out))
    return stages


def _learning(config: RunConfig, block: Block) -> list[Stage]:
    index, rows, ccd = block.index, len(block.train), config.ccd
    if ccd is None:
        epochs = max((fit.epochs for fit in within(config.learner, FitConfig)), default=1)
        return [Stage(index, "learning", epochs, rows)]
    first = [Stage(index, "student", ccd.update.fit.epochs, rows)] if index > 0 else []
    epochs = ccd.teacher.fit.epochs * ccd.teacher.update if index > 0 else ccd.base.fit.epochs
    members = [Stage(index, f"teacher {m}", epochs, rows) for m in range(len(ccd.teachers))]
    return [*first, *members, Stage(index, "generation", ccd.generation.fit.epochs, rows)]
