"""What a report is about: runs, gathered by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Newest = Mapping[tuple[str, str], Sequence[float | None]]


@dataclass(frozen=True)
class Member:
    """One run: a seed of a strategy.

    Args:
        strategy: its name in the report.
        about: ``run.json``.
        newest: the headline metric on each block right after it was learnt, by scorer and group.
        shared: seconds by ``"block/stage"`` of teachers that were trained for several runs.
    """

    strategy: str
    about: Mapping[str, Any]
    newest: Newest
    shared: Mapping[str, float]


@dataclass(frozen=True)
class Method:
    """A scorer of a strategy, over seeds; ``index`` decides how it is drawn everywhere."""

    name: str
    scorer: str
    index: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Group:
    """Methods that may be compared: the same data, protocol, mask and backbone.

    Args:
        title: in words.
        methods: every scorer that is shown.
        comparisons: paired tests, as ``cells.json`` holds them.
    """

    title: str
    methods: tuple[Method, ...]
    comparisons: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def strategies(self) -> dict[str, tuple[Member, ...]]:
        """The runs by strategy."""
        return {m.strategy: method.members for method in self.methods for m in method.members}

    @property
    def about(self) -> Mapping[str, Any]:
        """``run.json`` of the first run; all runs measure the same way."""
        return self.methods[0].members[0].about

    @property
    def summaries(self) -> tuple[str, ...]:
        """What the protocol measures; ``"next"`` never tests a block a second time."""
        retained = ("RA", "H", "forgetting", "BWT")
        return ("LA",) if self.about["protocol"] == "next" else ("LA", *retained)

    @property
    def main(self) -> str:
        """The summary that ranks methods."""
        return "H" if "H" in self.summaries else "LA"

    @property
    def seeds(self) -> str:
        """The number of seeds in words."""
        counts = sorted({len(method.members) for method in self.methods})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return "1 seed" if counts == [1] else f"mean ± standard deviation over {number} seeds"

    @property
    def conditions(self) -> str:
        """How every number of the group was measured."""
        about = self.about
        return (
            f"{about['metric']} on test rows, protocol {about['protocol']}, mask {about['mask']}, "
            f"ties by {about['ties']}"
        )

    @property
    def rule(self) -> str:
        """The same of numbers over all seeds."""
        return f"{self.conditions}; {self.seeds}"


@dataclass(frozen=True)
class Content:
    """All that a report shows.

    Args:
        title: of the page.
        groups: what may be compared.
        missing: cells without results, with the reason.
        complete: whether a run has reached its end.
    """

    title: str
    groups: tuple[Group, ...]
    missing: tuple[tuple[str, str], ...] = ()
    complete: bool = True
