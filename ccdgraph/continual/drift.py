"""Detectors on signals of a stream, the events they raise, and what a configuration does then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ccdgraph.continual.config import CCDConfig, ReplayConfig

Signal = Literal["miss", "loss", "popularity", "disagreement", "new"]
WITHIN: tuple[Signal, ...] = ("miss", "loss")  # a series within a block; the others are one number


@dataclass(frozen=True)
class Detector:
    """One detector on one signal.

    Args:
        signal: ``"miss"`` and ``"loss"`` of the rows before they are learnt (means over windows),
            ``"popularity"`` (Jensen-Shannon distance to the block before), ``"disagreement"`` of
            student and teacher, or the share of rows with ``"new"`` entities.
        method: ``"adwin"`` and ``"page-hinkley"`` on a series, of every window so far;
            ``"interval"`` on one number a block, for a series its mean: the newest lies above the
            one-sided prediction interval of the earlier ones, as if they were normal.
        alpha: chance of a false alarm that is accepted; ADWIN's delta.
        threshold: of Page-Hinkley.
    """

    signal: Signal = "miss"
    method: Literal["adwin", "page-hinkley", "interval"] = "interval"
    alpha: float = 0.01
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.method != "interval" and self.signal not in WITHIN:
            raise ValueError(
                f"'method' is {self.method!r} and 'signal' {self.signal!r}, one number a block; "
                "use 'interval'"
            )
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"'alpha' is {self.alpha}, expected a number between 0 and 0.5")


@dataclass(frozen=True)
class Action:
    """What is done at a block with an event.

    Args:
        do: ``"update-teacher"`` lets the teachers learn the block although it is not their turn;
            ``"raise-plasticity"`` multiplies what the plasticity proxy replays by ``factor`` and
            divides what the stability proxy does; ``"shrink-replay"`` divides the weight of all
            replay.
        on: signal of the event; ``"any"`` for all.
        factor: above 1.
    """

    do: Literal["update-teacher", "raise-plasticity", "shrink-replay"]
    on: Signal | Literal["any"] = "any"
    factor: float = 2.0

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise ValueError(f"'factor' is {self.factor}, expected a number above 1")


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
    found = above_interval(means, detector.alpha)
    if detector.method != "interval":
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


def adapted(config: CCDConfig, events: Sequence[Event], actions: Sequence[Action]) -> CCDConfig:
    """The settings for a block with these events."""
    for action in actions:
        if not any(action.on in ("any", event.signal) for event in events):
            continue
        if action.do == "update-teacher":
            config = replace(config, teacher=replace(config.teacher, update=True))
            continue
        update, teacher = (
            tuple(_replayed(replay, action) for replay in stage.replay)
            for stage in (config.update, config.teacher)
        )
        config = replace(
            config,
            update=replace(config.update, replay=update),
            teacher=replace(config.teacher, replay=teacher),
        )
    return config


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
