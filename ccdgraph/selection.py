"""Which epoch of a training is kept, and how long ago anything improved."""

from __future__ import annotations

import math
from collections.abc import Sequence


class Selection:
    """Validation values by epoch; the first of each epoch chooses, any of them is progress.

    An epoch is better only if its value is higher, so the first of equal ones is kept.

    >>> seen = Selection()
    >>> [seen.note(values) for values in [(1.0, 5.0), (0.5, 6.0), (0.5, 6.0)]]
    [True, False, False]
    >>> seen.best_epoch, seen.waited  # the second value improved in epoch 1
    (0, 1)
    """

    def __init__(self) -> None:
        self.valid: list[float] = []
        self.best_epoch, self.progress = -1, -1
        self.highest: list[float] = []

    def note(self, values: float | Sequence[float]) -> bool:
        """Add the values of an epoch; whether its weights are the ones to keep so far."""
        values = list(values) if isinstance(values, Sequence) else [values]
        self.highest = self.highest or [-math.inf] * len(values)
        epoch = len(self.valid)
        better = epoch == 0 or values[0] > self.valid[self.best_epoch]
        self.valid.append(values[0])
        if better:
            self.best_epoch = epoch
        if better or any(new > old for new, old in zip(values, self.highest, strict=True)):
            self.progress = epoch
        self.highest = [*map(max, self.highest, values)]
        return better

    @property
    def waited(self) -> int:
        """Epochs since any value improved."""
        return len(self.valid) - 1 - self.progress
