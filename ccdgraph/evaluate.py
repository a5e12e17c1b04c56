"""Evaluation: exact full rankings measured per user, per block, and over a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ccdgraph import metrics
from ccdgraph.data.interactions import Interactions, UserItems, is_in
from ccdgraph.data.stream import Block, Stream
from ccdgraph.metrics import AccuracyMatrix as AccuracyMatrix
from ccdgraph.ranking import BUDGET, Scorer, recommend_lists

if TYPE_CHECKING:
    import pandas as pd

KS = (20, 50, 100)
Mask = Literal["block", "strict"]
Split = Literal["valid", "test"]

_METRICS = {
    "recall": metrics.recall,
    "ndcg": metrics.ndcg,
    "hit": metrics.hit_rate,
    "mrr": metrics.mrr,
    "trecall": metrics.truncated_recall,
}


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every evaluated user, from which means and paired tests follow.

    Args:
        user: users with at least one target, ascending, ``[n]``.
        metrics: float64 ``[n]`` by name: ``recall``, ``ndcg``, ``hit``, ``mrr`` and ``trecall``
            (truncated recall), each ``@k``.

    >>> measured = Evaluation(torch.tensor([0, 7]), {"recall@20": torch.tensor([0.5, 1.0])})
    >>> measured.mean(), measured.where(measured.user > 5).mean()
    ({'recall@20': 0.75}, {'recall@20': 1.0})
    """

    user: Tensor
    metrics: dict[str, Tensor]

    def __len__(self) -> int:
        return self.user.numel()

    def mean(self) -> dict[str, float]:
        """Mean over users by metric; NaN when there are none."""
        means = torch.stack([value.mean() for value in self.metrics.values()])  # read at once
        return dict(zip(self.metrics, means.tolist(), strict=True))

    def where(self, mask: Tensor) -> Evaluation:
        """The users that a mask ``[n]`` selects."""
        return Evaluation(self.user[mask], {name: v[mask] for name, v in self.metrics.items()})

    def to_frame(self) -> pd.DataFrame:
        """One row per user: ``user``, then a column per metric."""
        import pandas as pd

        columns = {"user": self.user, **self.metrics}
        return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def evaluate(
    scorer: Scorer,
    targets: Interactions,
    seen: UserItems | None = None,
    *,
    ks: Sequence[int] = KS,
    user_from: int = 0,
    item_from: int | None = None,
    budget: int = BUDGET,
) -> Evaluation:
    """Rank the whole catalogue for every user with targets, and measure the lists.

    Ground truth is a set: repeated pairs count once. Targets in ``seen`` stay in the ground truth
    although they cannot be listed; drop them first with ``unseen_targets`` if they should not.

    Args:
        scorer: the model.
        targets: held-out interactions.
        seen: items to leave out of the lists.
        ks: list lengths to measure.
        user_from: count only users with this id or above (new users).
        item_from: count only targets with this id or above (new items); lists stay full.
        budget: bytes that score blocks may take at once.

    Raises:
        ValueError: no targets, ids the scorer does not know, or a ``k`` above the catalogue.
    """
    keep = (targets.user >= user_from) & (targets.item >= (item_from or 0))
    lists = _rank(scorer, targets[keep], seen, ks, budget)
    return lists.measure(0, scorer.num_items)


@dataclass(frozen=True)
class _Ranked:
    """Lists of the users that have targets, computed once for all subsets of the targets."""

    user: Tensor  # [n]
    lists: Tensor  # [n, max(ks)]
    truth: UserItems
    ks: Sequence[int]

    def measure(self, item_from: int, item_until: int) -> Evaluation:
        """Metrics on the targets with an id in the range, for the users that have any."""
        row, item = self.truth.entries(self.user)
        inside = (item >= item_from) & (item < item_until)
        some, row = torch.unique(row[inside], return_inverse=True)
        user, lists, relevant = self.user[some], self.lists[some], torch.bincount(row)
        hits, _ = metrics.hit_matrix(lists, user, self.truth)
        hits &= (lists >= item_from) & (lists < item_until)
        values = {f"{m}@{k}": f(hits, relevant, k) for m, f in _METRICS.items() for k in self.ks}
        return Evaluation(user, values)


def _rank(
    scorer: Scorer, targets: Interactions, seen: UserItems | None, ks: Sequence[int], budget: int
) -> _Ranked:
    if len(targets) == 0:
        raise ValueError("evaluation has no test rows; choose another block, split or filter")
    num_users, num_items = scorer.num_users, scorer.num_items
    user, item = int(targets.user.max()), int(targets.item.max())
    if user >= num_users or item >= num_items:
        raise ValueError(
            f"'targets' reach user {user} and item {item}, the scorer knows {num_users} users and "
            f"{num_items} items; grow it first or drop the rows"
        )
    truth = UserItems.from_interactions([targets], num_users, num_items)
    users = truth.degree.nonzero().squeeze(1)
    lists = recommend_lists(scorer, users, max(ks), seen, budget=budget)[1]
    return _Ranked(users.to(lists.device), lists, truth.to(lists.device), ks)


def unseen_targets(targets: Interactions, seen: UserItems) -> Interactions:
    """The targets that are not in ``seen``: what a list without seen items can still hit."""
    known = (targets.user < seen.num_users) & (targets.item < seen.num_items)
    return targets[~(known & is_in(targets.user * seen.num_items + targets.item, seen.keys()))]


def seen_items(
    stream: Stream | Sequence[Block],
    *,
    tested: int,
    learnt: int,
    mask: Mask = "strict",
    split: Split = "test",
    protocol: str | None = None,
) -> UserItems:
    """Items that a user is known to have at the tested moment and that lists leave out.

    * ``"within"``, mask ``"block"`` (the released CCD code): train and valid items of the tested
      block; only train when validating.
    * ``"within"``, mask ``"strict"``: train and valid items of the blocks learnt, test items of
      the blocks before the tested one; when validating, train items of the blocks learnt, valid
      and test items of the blocks before the tested one.
    * ``"next"``, either mask: train items of the blocks learnt, and the valid half when testing.

    Reads no block later than both ``learnt`` and ``tested``; a tested block that is not learnt
    yet counts as learnt.

    Args:
        stream: a stream, or the blocks that have arrived.
        tested: block whose held-out part is measured.
        learnt: last block the scorer has learnt.
        mask: ``"block"`` or ``"strict"``.
        split: the held-out part.
        protocol: ``"within"`` or ``"next"``; by default the stream's own.
    """
    if protocol is None:
        protocol = stream.protocol if isinstance(stream, Stream) else "within"
    if not (0 <= tested < len(stream) and 0 <= learnt < len(stream)):
        raise ValueError(
            f"'tested' is {tested} and 'learnt' {learnt}, expected 0 to {len(stream) - 1}"
        )
    _check_choice("mask", mask, ("block", "strict"))
    _check_choice("split", split, ("valid", "test"))
    _check_choice("protocol", protocol, ("within", "next"))
    testing = split == "test"
    blocks = [stream[j] for j in sorted({*range(learnt + 1), tested})]
    if protocol == "within" and mask == "block":
        blocks = [stream[tested]]
    parts = [block.train for block in blocks]
    if protocol == "next":
        parts += [stream[tested].valid] if testing else []
    elif mask == "strict":
        parts += [b.valid for b in blocks if testing or b.index < tested]
        parts += [b.test for b in blocks if b.index < tested]
    elif testing:
        parts.append(stream[tested].valid)
    last = stream[max(tested, learnt)]
    return UserItems.from_interactions(parts, last.num_users, last.num_items)


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"'{name}' is {value!r}, expected one of {', '.join(choices)}")


def evaluate_block(
    scorer: Scorer,
    stream: Stream,
    tested: int,
    learnt: int,
    *,
    mask: Mask = "strict",
    split: Split = "test",
    ks: Sequence[int] = KS,
    budget: int = BUDGET,
) -> dict[str, Evaluation]:
    """Measure a scorer that has learnt blocks up to ``learnt`` on the held-out part of ``tested``.

    New means first known in the tested block. The ranking always covers the full catalogue; on new
    items only the targets that are new count, for the users that have any. Mask ``"strict"`` drops
    targets that are seen already, ``"block"`` keeps them as the released CCD numbers do.

    Returns:
        An evaluation of each group, ``all``, and after block 0 ``new_users``, ``old_users``,
        ``new_items`` and ``old_items``; a group without users has length 0 and NaN means.
    """
    if stream.protocol == "next" and learnt > tested:
        raise ValueError(
            f"'learnt' is {learnt} and 'tested' {tested}, but under protocol 'next' the test rows "
            f"of block {tested} are trained on in block {tested + 1}; use learnt <= tested"
        )
    block = stream[tested]
    targets = block.test if split == "test" else block.valid
    seen = seen_items(stream, tested=tested, learnt=learnt, mask=mask, split=split)
    if mask == "strict":
        targets = unseen_targets(targets, seen)
    ranked = _rank(scorer, targets, seen, ks, budget)
    everything = ranked.measure(0, scorer.num_items)
    if tested == 0:
        return {"all": everything}
    before = stream[tested - 1]
    new_user = everything.user >= before.num_users
    return {
        "all": everything,
        "new_users": everything.where(new_user),
        "old_users": everything.where(~new_user),
        "new_items": ranked.measure(before.num_items, scorer.num_items),
        "old_items": ranked.measure(0, before.num_items),
    }
