"""CCD that watches its stream for drift and reacts to it, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual.ccd import CCD
from ccdgraph.continual.config import CCDConfig
from ccdgraph.continual.drift import Action, Detector, Event, adapted, events_at
from ccdgraph.continual.signals import (
    disagreement,
    known_rows,
    losses_before,
    misses,
    new_share,
    popularity_shift,
    ranks,
)
from ccdgraph.continual.strategy import Strategy
from ccdgraph.data.stream import Block
from ccdgraph.ranking import Scorer

_SERIES = "drift/"


@dataclass(frozen=True)
class AdaptiveConfig:
    """Settings of :class:`AdaptiveCCD`.

    Args:
        ccd: settings of CCD while nothing happens.
        detectors: what is watched.
        actions: what is done about it.
        teacher_every: blocks between two turns of the teachers; students learn every block.
        window: rows whose mean is one value of a series.
        k: length of the lists that signals are read from.
    """

    ccd: CCDConfig = CCDConfig()
    detectors: tuple[Detector, ...] = (Detector(),)
    actions: tuple[Action, ...] = ()
    teacher_every: int = 1
    window: int = 32
    k: int = 20

    def __post_init__(self) -> None:
        for name in ("teacher_every", "window", "k"):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' is {getattr(self, name)}, expected at least 1")


class AdaptiveCCD(Strategy):
    """CCD whose settings at a block depend on what the block looks like before it is learnt.

    Signals are read off the training rows of a block by the student and the teachers as they were
    before it (test first, then train). Alarms are kept in ``events``, and the actions bound to
    them hold for the block. Without detectors and with ``teacher_every = 1`` it is CCD to the bit.

    Args:
        config: all settings.
        seed: root of every generator.
    """

    def __init__(self, config: AdaptiveConfig = AdaptiveConfig(), *, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self.inner = CCD(config.ccd, seed=seed)
        # Of every signal, its values block by block from block 1 on.
        self.series: dict[str, list[list[float]]] = {d.signal: [] for d in config.detectors}
        self.events: list[Event] = []
        self.watched = 0
        self._last: Block | None = None

    def update(self, block: Block) -> Scorer:
        """Read the signals of ``block``, then learn it with the settings they ask for."""
        if block.index > self.watched:
            self._watch(block)
        self._last = block
        self.inner.config = self._settings(block.index)
        self.inner.on_progress, self.inner.on_stage = self.on_progress, self.on_stage
        return self.inner.update(block)

    def scorers(self) -> Mapping[str, Scorer]:
        """Those of CCD."""
        return self.inner.scorers()

    def state(self) -> dict[str, Tensor]:
        """That of CCD, and the series of all signals."""
        tensors = self.inner.state()
        for name, blocks in self.series.items():
            for place, values in enumerate(blocks):
                tensors[f"{_SERIES}{name}/{place}"] = torch.tensor(values, dtype=torch.float64)
        return tensors

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Take up :meth:`state`; the events follow from the series."""
        self.series = {name: [] for name in self.series}
        self.events, self.watched = [], 0
        lengths = [name for name in state if name.startswith(_SERIES)]
        number = 1 + max((int(name.rpartition("/")[2]) for name in lengths), default=-1)
        for place in range(number):
            for name, values in self.series.items():
                values.append(state[f"{_SERIES}{name}/{place}"].tolist())
            self._raise(place + 1)
        own = {name: value for name, value in state.items() if not name.startswith(_SERIES)}
        self.inner.restore(own, blocks)
        index = self.inner.index
        self._last = blocks[index] if index >= 0 else None

    def _watch(self, block: Block) -> None:
        """The signals of ``block``, as the last state sees it."""
        read = self._signals(block)
        for name, values in self.series.items():
            values.append(read[name])
        self._raise(block.index)

    def _raise(self, index: int) -> None:
        self.events += events_at(index, self.config.detectors, self.series)
        self.watched = index

    def _signals(self, block: Block) -> dict[str, list[float]]:
        known, last = self.inner.known, self._last
        assert known is not None and last is not None, "learn the base block first"
        student, seen, k = self.inner.knowledge["student"], known.seen, self.config.k
        sizes = (seen.num_users, seen.num_items)
        rows = known_rows(block.train, *sizes)
        asked, older = self.series.keys(), known.before
        found = {"new": [new_share(block, *sizes)]}
        draws = rng(self.seed, block.index, "drift", device=rows.user.device)
        if "popularity" in asked and older is not None:  # items of the base block came at any time
            shift = popularity_shift(block.train, last.train, older.num_items)
            found["popularity"] = [shift]
        if "miss" in asked and len(rows):
            found["miss"] = self._windows(misses(student, rows, seen, k=k))
        if "rank" in asked and len(rows):
            found["rank"] = self._windows(ranks(student, rows, seen))
        if "loss" in asked and len(rows):
            found["loss"] = self._windows(losses_before(student, rows, seen, generator=draws))
        if "disagreement" in asked and len(rows):
            users = rows.user.unique()
            teacher = self.inner.ensemble()
            found["disagreement"] = [disagreement(student, teacher, seen, users, k)]
        return {name: found.get(name, []) for name in asked}

    def _windows(self, values: Tensor) -> list[float]:
        """Means over windows in the order of arrival; a short last one is left out."""
        size = min(self.config.window, len(values))
        number = len(values) // size
        means: list[float] = values[: number * size].view(number, size).double().mean(1).tolist()
        return means

    def _settings(self, index: int) -> CCDConfig:
        ccd = self.config.ccd
        if index % self.config.teacher_every:
            ccd = replace(ccd, teacher=replace(ccd.teacher, update=False))
        return adapted(ccd, index, self.events, self.config.actions)
