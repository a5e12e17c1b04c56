"""What a run shows while it lasts: bars on a terminal, a line a stage elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ccdgraph.run import RunResult, Stage, Watcher


@contextmanager
def watching(stages: Sequence[Stage], console: Console) -> Iterator[Watcher]:
    """A watcher for a run of ``stages`` that shows what suits ``console``."""
    if not console.is_terminal:
        yield Lines(console)
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
    )
    with progress:
        yield Bars(stages, progress)


class Lines(Watcher):
    """A line for every stage and every block."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def stage(self, label: str, seconds: float) -> None:
        """Says what is finished."""
        self._say(f"{label}: {seconds:.1f} s")

    def block(self, result: RunResult) -> None:
        """Says how well every scorer does by now."""
        self._say(summary_line(result))

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Watcher):
    """One bar for the run, with the time left, and one for the stage; a line for every block.

    Args:
        stages: all stages in order; a run that is resumed starts at any of them.
        progress: where the bars are.
    """

    def __init__(self, stages: Sequence[Stage], progress: Progress) -> None:
        self.progress = progress
        self.labels = [stage.label for stage in stages]
        self.work = [float(stage.epochs * stage.rows) for stage in stages]
        self.begun = False
        self.all = progress.add_task("the run", total=None)
        self.one = progress.add_task(self.labels[0], total=None)

    def epoch(self, label: str, done: int, total: int) -> None:
        """Moves both bars."""
        place = self._place(label)
        self._move(sum(self.work[:place]) + self.work[place] * done / total)
        self.progress.update(self.one, description=label, total=total, completed=done)

    def stage(self, label: str, seconds: float) -> None:
        """Goes on to the next stage."""
        place = self._place(label) + 1
        self._move(sum(self.work[:place]))
        if place < len(self.labels):
            self.progress.reset(self.one, description=self.labels[place], total=None)

    def block(self, result: RunResult) -> None:
        """Says how well every scorer does by now."""
        self.progress.console.print(summary_line(result), markup=False, highlight=False)

    def _place(self, label: str) -> int:
        """Of the planned stage; a strategy's own stages are parts of one that is."""
        if label in self.labels:
            return self.labels.index(label)
        return self.labels.index(f"{' '.join(label.split()[:2])} learning")

    def _move(self, completed: float) -> None:
        if self.begun:
            self.progress.update(self.all, completed=completed)
        else:  # what an earlier process did must not count in the speed
            self.progress.reset(self.all, total=sum(self.work), completed=int(completed))
            self.begun = True


def summary_line(result: RunResult) -> str:
    """Learning and retained average and their harmonic mean of every scorer so far."""
    learnt = result.learnt
    parts = []
    for scorer in result.scorers:
        matrix = result.matrix(scorer)
        means = (
            f"LA {matrix.learning_average(learnt):.4f}",
            f"RA {matrix.retained_average(learnt):.4f}",
            f"H {matrix.h_mean(learnt):.4f}",
        )
        parts.append(f"{scorer} {' '.join(means)}")
    headline = result.config.evaluate.headline
    return f"after block {learnt}, {headline}: {'; '.join(parts)}"
