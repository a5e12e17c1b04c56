"""Model selection: one recall after every epoch, and which epoch is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ccdgraph import metrics
from ccdgraph.data.interactions import Interactions, UserItems, is_in
from ccdgraph.ranking import Scorer, recommend_lists


class Validation:
    """Mean recall@k of fixed targets, as :func:`ccdgraph.evaluate.evaluate` gives it.

    What depends on the targets alone is made once, and no other metric is measured: an epoch on a
    small block takes a few milliseconds on a CUDA device, and so would all of that.

    Args:
        targets: held-out interactions, one at least.
        seen: items to leave out of the lists; its sizes are those of the scorers.
        k: length of the lists.

    >>> import torch
    >>> from ccdgraph.nn import Embeddings
    >>> targets = Interactions(torch.tensor([0]), torch.tensor([1]))
    >>> seen = UserItems.from_interactions([], 1, 3)
    >>> scorer = Embeddings(torch.ones(1, 1), torch.tensor([[0.0], [1.0], [2.0]]))
    >>> Validation(targets, seen, k=1)(scorer), Validation(targets, seen, k=2)(scorer)
    (0.0, 1.0)
    """

    def __init__(self, targets: Interactions, seen: UserItems, *, k: int) -> None:
        truth = UserItems.from_interactions([targets], seen.num_users, seen.num_items)
        self.user = truth.degree.nonzero().squeeze(1)
        self.relevant, self.keys = truth.degree[self.user], truth.keys()
        self.first = self.user.unsqueeze(1) * seen.num_items
        self.seen, self.k = seen, k

    def __call__(self, scorer: Scorer) -> float:
        """Mean over the users that have targets."""
        lists = recommend_lists(scorer, self.user, self.k, self.seen)[1]
        hits = is_in(self.first + lists, self.keys) & (lists >= 0)
        return float(metrics.recall(hits, self.relevant, self.k).mean())


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
