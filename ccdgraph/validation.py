"""Model selection: one recall of the same targets after every epoch."""

from __future__ import annotations

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
