"""Teachers that a search has found: which are worth their cost, and what a cheap run predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Found(NamedTuple):
    """A teacher that was tried in full: its cost, its own quality and the student's gain."""

    teacher: str
    parameters: int
    seconds: float
    quality: float
    student: float
    gain: float
    predicted: float


def predict(pairs: Sequence[tuple[float, float]], cheap: float) -> float:
    """The gain in full that a least-squares line gives to a cheap one; their mean below 3 pairs.

    >>> round(predict([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)], 1.5), 6)
    4.0
    """
    if not pairs:
        return cheap
    n = len(pairs)
    x, y = (sum(values) / n for values in zip(*pairs, strict=True))
    spread = sum((a - x) ** 2 for a, _ in pairs)
    together = sum((a - x) * (b - y) for a, b in pairs)
    slope = 0.0 if n < 3 or spread == 0 else together / spread
    return float(y + (cheap - x) * slope)


def frontier(found: Sequence[Found]) -> list[Found]:
    """The teachers that no cheaper one equals, by the student's quality; the cheapest first."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (one.seconds, -one.student)):
        if not kept or one.student > kept[-1].student:
            kept.append(one)
    return kept
