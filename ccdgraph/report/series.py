"""Means and standard deviations over the seeds of a method, block by block."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ccdgraph.report.content import Member, Method

EVALUATION = "evaluation"  # the stage that is no part of learning


class Mean(NamedTuple):
    """Mean and sample standard deviation; 0 for one seed."""

    value: float
    sd: float


Series = list[Mean | None]


def mean(values: Iterable[float | None]) -> Mean | None:
    """Of the known values; nothing without any.

    >>> mean([1.0, None, 3.0])
    Mean(value=2.0, sd=1.4142135623730951)
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Mean(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0)


def brief(value: float) -> str:
    """A number with three digits.

    >>> brief(1234.5), brief(0.12345)
    ('1,234', '0.123')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def across(rows: Iterable[Sequence[float | None]]) -> Series:
    """The mean of every column; short rows end early."""
    rows = list(rows)
    length = max(map(len, rows), default=0)
    return [mean(row[k] for row in rows if k < len(row)) for k in range(length)]


def quantity(method: Method, name: str, *, base: bool = True) -> Series:
    """``LA``, ``RA``, ``H``, ``forgetting`` or ``BWT`` after each block, from block 0 on."""
    key = "with_base" if base else "without_base"
    rows = []
    for member in method.members:
        means = member.about["results"][method.scorer][key]
        known = dict(zip(means["blocks"], means[name], strict=True))
        rows.append([known.get(k) for k in range(max(known, default=-1) + 1)])
    return across(rows)


def matrix(method: Method) -> list[Series]:
    """The accuracy matrix: a row for every block learnt, a column for every block tested."""
    every = [member.about["results"][method.scorer]["matrix"] for member in method.members]
    return [across(rows) for rows in zip(*every, strict=True)]


def newest(method: Method, group: str) -> Series:
    """Accuracy of a group on each block right after it was learnt."""
    return across(member.newest.get((method.scorer, group), []) for member in method.members)


def parameters(method: Method) -> int | None:
    """Trained numbers of the method's model; nothing where it has none of its own."""
    held: Mapping[str, int] = method.members[0].about["parameters"]
    only = next(iter(held.values())) if len(held) == 1 else None
    return held.get(method.scorer, only)


def stages(members: Sequence[Member]) -> dict[str, Series]:
    """Seconds by stage and block, all members of an ensemble together; evaluation comes last."""
    names: dict[str, None] = {}
    each = []
    for member in members:
        spent: dict[tuple[str, int], float] = {}
        for seconds in (member.shared, member.about["seconds"]):
            for key, value in seconds.items():
                block, _, stage = key.partition("/")
                place = (re.sub(r" \d+$", "", stage), int(block))
                spent[place] = spent.get(place, 0.0) + value
                names.setdefault(place[0])
        each.append(spent)
    blocks = range(1 + max((block for spent in each for _, block in spent), default=-1))
    return {
        name: [mean(spent.get((name, block)) for spent in each) for block in blocks]
        for name in sorted(names, key=EVALUATION.__eq__)
    }


def learning_seconds(members: Sequence[Member]) -> list[float]:
    """Seconds spent on learning up to the end of each block, mean over seeds."""
    spent = [series for name, series in stages(members).items() if name != EVALUATION]
    totals, so_far = [], 0.0
    for entries in zip(*spent, strict=True):
        so_far += sum(entry.value for entry in entries if entry is not None)
        totals.append(so_far)
    return totals


def flatten(config: Any, where: str = "") -> dict[str, str]:
    """Settings by dotted key, as text.

    >>> flatten({"fit": {"lr": 0.1}, "dims": [2, 3]})
    {'fit.lr': '0.1', 'dims': '2, 3'}
    """
    if isinstance(config, Mapping):
        nested = (flatten(value, f"{where}.{key}".lstrip(".")) for key, value in config.items())
        return {key: value for part in nested for key, value in part.items()}
    if isinstance(config, (list, tuple)) and any(isinstance(one, Mapping) for one in config):
        return flatten({str(place): one for place, one in enumerate(config)}, where)
    if isinstance(config, (list, tuple)):
        return {where: ", ".join(map(str, config)) or "none"}
    return {where: "not set" if config is None else str(config)}
