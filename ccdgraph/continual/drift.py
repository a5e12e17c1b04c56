"""Detectors on signals of a stream, the events they raise, and what a configuration does then."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from ccdgraph.continual.config import CCDConfig, ReplayConfig, StudentConfig, TeacherConfig

Signal = Literal["miss", "rank", "loss", "popularity", "disagreement", "new"]
Stage = TypeVar("Stage", StudentConfig, TeacherConfig)
WITHIN: tuple[Signal, ...] = (
    "miss",
    "rank",
    "loss",
)  # a series within a block; the others are one number


@dataclass(frozen=True)
class Detector:
    """One detector on one signal.

    Args:
        signal: ``"miss"``, ``"rank"`` and ``"loss"`` of the rows before they are learnt (means over
            windows),
            ``"popularity"`` (Jensen-Shannon distance to the block before), ``"disagreement"`` of
            student and teacher, or the share of rows with ``"new"`` entities.
        method: ``"adwin"`` and ``"page-hinkley"`` on a series, of every window so far; ``"step"``
            on a series, of the newest block against the ``back`` before it (:func:`step_up`);
            ``"interval"`` on one number a block, for a series its mean: the newest lies above the
            one-sided prediction interval of the earlier ones, as if they were normal.
        alpha: chance of a false alarm that is accepted; ADWIN's delta.
        threshold: of Page-Hinkley.
        back: earlier blocks that ``"step"`` compares with; few, so that a slow trend is none.
    """

    signal: Signal = "miss"
    method: Literal["adwin", "page-hinkley", "step", "interval"] = "interval"
    alpha: float = 0.01
    threshold: float = 0.5
    back: int = 2

    def __post_init__(self) -> None:
        if self.method != "interval" and self.signal not in WITHIN:
            raise ValueError(
                f"'method' is {self.method!r} and 'signal' {self.signal!r}, one number a block; "
                "use 'interval'"
            )
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"'alpha' is {self.alpha}, expected a number between 0 and 0.5")
        if self.back < 1:
            raise ValueError(f"'back' is {self.back}, expected at least 1")


@dataclass(frozen=True)
class Action:
    """What is done at a block with an event.

    Args:
        do: ``"update-teacher"`` lets the teachers learn the block although it is not their turn;
            ``"raise-plasticity"`` multiplies what the plasticity proxy replays by ``factor`` and
            divides what the stability proxy does; ``"shrink-replay"`` divides the weight of all
            replay; ``"train-longer"`` multiplies the epochs in which student and teachers learn a
            block.
        on: signal of the event; ``"any"`` for all.
        factor: above 1.
        hold: blocks for which it is done, the one with the event the first.
    """

    do: Literal["update-teacher", "raise-plasticity", "shrink-replay", "train-longer"]
    on: Signal | Literal["any"] = "any"
    factor: float = 2.0
    hold: int = 1

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise ValueError(f"'factor' is {self.factor}, expected a number above 1")
        if self.hold < 1:
            raise ValueError(f"'hold' is {self.hold}, expected at least 1")

    def due(self, block: int, event: Event) -> bool:
        """Whether it is done at ``block`` because of ``event``."""
        return self.on in ("any", event.signal) and 0 <= block - event.block < self.hold


class Event(NamedTuple):
    """A detector's alarm at a block."""

    block: int
    signal: str
    method: str
    value: float
    expected: float


def detect(detector: Detector, series: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """The newest mean and that of the blocks before, where the newest block raises an alarm.

    Args:
        detector: which.
        series: values of its signal, block by block, the newest last.
    """
    means = [sum(values) / len(values) for values in series if len(values)]
    if len(means) < 2 or not series[-1]:
        return None
    newest, expected = means[-1], sum(means[:-1]) / (len(means) - 1)
    if detector.method == "interval":
        found = above_interval(means, detector.alpha)
    elif detector.method == "step":
        found = step_up(series, detector.alpha, detector.back)
    else:
        found = alarm_in_last(detector, series) and newest > expected
    return (newest, expected) if found else None


def above_interval(values: Sequence[float], alpha: float) -> bool:
    r"""Whether the last value lies above the prediction interval of those before.

    .. math:: x_{n+1} > \bar x + t_{1 - \alpha, n - 1}\, s \sqrt{1 + 1/n}

    which happens with probability :math:`\alpha` to a sample of one normal distribution. Needs
    three earlier values.
    """
    from scipy import stats

    *before, newest = values
    n = len(before)
    if n < 3:
        return False
    mean = sum(before) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in before) / (n - 1))
    quantile = float(stats.t.ppf(1 - alpha, n - 1))
    return newest > mean + quantile * deviation * math.sqrt(1 + 1 / n)


def step_up(series: Sequence[Sequence[float]], alpha: float, back: int) -> bool:
    r"""Whether the values of the last block lie above those of the ``back`` blocks before.

    .. math:: \frac{\bar x - \bar y}{\sqrt{s_x^2 / n + s_y^2 / m}} > t_{1 - \alpha, \nu}

    with the degrees of freedom :math:`\nu` of Welch, *The generalization of 'Student's' problem
    when several different population variances are involved*, Biometrika 1947. The spread within
    blocks says what is chance, where an interval over the means of blocks has few numbers to tell
    it from. Needs ``back + 1`` earlier blocks, since the first ones still settle after the base
    block, and two values on either side. Values of one block have users and a learner in common,
    so there are more false alarms than ``alpha`` says.
    """
    from scipy import stats

    *before, newest = [values for values in series if len(values)]
    earlier = [value for values in before[-back:] for value in values]
    if len(before) <= back or min(len(newest), len(earlier)) < 2:
        return False
    (x, s), (y, r) = (_mean_and_error(values) for values in (newest, earlier))
    if s + r == 0:
        return x > y
    degrees = (s + r) ** 2 / (s**2 / (len(newest) - 1) + r**2 / (len(earlier) - 1))
    return (x - y) / math.sqrt(s + r) > float(stats.t.ppf(1 - alpha, degrees))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its squared standard error."""
    return statistics.mean(values), statistics.variance(values) / len(values)


def alarm_in_last(detector: Detector, series: Sequence[Sequence[float]]) -> bool:
    """Whether ADWIN or Page-Hinkley, fed with all blocks, raises an alarm in the last."""
    try:
        from river import drift
    except ImportError as error:
        raise ValueError(
            f"method {detector.method!r} needs river; install ccdgraph[drift] or use 'interval'"
        ) from error

    watch: Any = (
        drift.ADWIN(delta=detector.alpha, clock=1, grace_period=5)
        if detector.method == "adwin"
        else drift.PageHinkley(threshold=detector.threshold, min_instances=10, mode="up")
    )
    alarm = False
    for values in series:
        alarm = False
        for value in values:
            watch.update(value)
            alarm = alarm or watch.drift_detected
    return alarm


def adapted(
    config: CCDConfig, block: int, events: Sequence[Event], actions: Sequence[Action]
) -> CCDConfig:
    """The settings for ``block`` after these events."""
    for action in actions:
        if not any(action.due(block, event) for event in events):
            continue
        if action.do == "update-teacher":
            config = replace(config, teacher=replace(config.teacher, update=True))
            continue
        change = partial(_longer if action.do == "train-longer" else _replaying, action)
        config = replace(config, update=change(config.update), teacher=change(config.teacher))
    return config


def _longer(action: Action, stage: Stage) -> Stage:
    fit = replace(stage.fit, epochs=round(stage.fit.epochs * action.factor))
    return replace(stage, fit=fit)


def _replaying(action: Action, stage: Stage) -> Stage:
    return replace(stage, replay=tuple(_replayed(replay, action) for replay in stage.replay))


def _replayed(replay: ReplayConfig, action: Action) -> ReplayConfig:
    if action.do == "shrink-replay":
        return replace(replay, weight=replay.weight / action.factor)
    return replace(
        replay,
        plasticity=round(replay.plasticity * action.factor),
        stability=round(replay.stability / action.factor),
    )


def events_at(
    block: int, detectors: Sequence[Detector], series: Mapping[str, Sequence[Sequence[float]]]
) -> list[Event]:
    """The alarms at block ``block``, the newest of every series."""
    found = []
    for detector in detectors:
        alarm = detect(detector, series[detector.signal])
        if alarm is not None:
            found.append(Event(block, detector.signal, detector.method, *alarm))
    return found
