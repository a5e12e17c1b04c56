"""Filters of events: repeated pairs, low ratings, sparse entities."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ccdgraph.data.events import Events

Duplicates = Literal["keep", "first", "last", "sum"]


def deduplicate(events: Events, keep: Duplicates = "first") -> Events:
    """One row per (user, item) pair.

    Args:
        events: rows in time order.
        keep: ``"first"`` or ``"last"`` row of a pair; ``"sum"`` keeps the first with the ratings of
            all added up (their number, without ratings); ``"keep"`` changes nothing.

    Raises:
        ValueError: ``keep`` is none of these.

    >>> from ccdgraph.data import Interactions, Vocabulary
    >>> rows = Interactions(torch.tensor([0, 0, 0]), torch.tensor([0, 1, 0]))
    >>> deduplicate(Events(rows, Vocabulary([7]), Vocabulary([4, 5])), "sum").interactions.rating
    tensor([2., 1.])
    """
    if keep not in ("keep", "first", "last", "sum"):
        raise ValueError(f"'duplicates' is {keep!r}; it must be 'keep', 'first', 'last' or 'sum'")
    if keep == "keep" or len(events) == 0:
        return events
    rows = events.interactions
    key = rows.user * len(events.items) + rows.item
    _, pair = torch.unique(key, return_inverse=True)
    place = torch.arange(len(rows))
    chosen = torch.zeros(int(pair.max()) + 1, dtype=torch.int64)
    chosen.scatter_reduce_(0, pair, place, "amax" if keep == "last" else "amin", include_self=False)
    if keep == "sum":
        weight = torch.ones(len(rows)) if rows.rating is None else rows.rating
        total = torch.zeros(len(chosen)).index_add_(0, pair, weight)
        events = replace(events, interactions=replace(rows, rating=total[pair]))
    return events[chosen.sort().values]


def k_core(events: Events, k: int) -> Events:
    """The largest part in which every user has ``k`` distinct items and every item ``k`` users.

    Raises:
        ValueError: ``k`` is negative or nothing is left.

    >>> from ccdgraph.data import Interactions, Vocabulary
    >>> rows = Interactions(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 0]))
    >>> len(k_core(Events(rows, Vocabulary(range(3)), Vocabulary(range(2))), 2))
    4
    """
    if k < 0:
        raise ValueError(f"'k_core' is {k}; it must be at least 0")
    if k <= 1:
        return events
    rows, num_items = events.interactions, len(events.items)
    pairs = torch.unique(rows.user * num_items + rows.item)
    user, item = pairs // num_items, pairs % num_items
    while True:
        many_items = torch.bincount(user, minlength=len(events.users)) >= k
        many_users = torch.bincount(item, minlength=num_items) >= k
        kept = many_items[user] & many_users[item]
        if bool(kept.all()):
            break
        user, item = user[kept], item[kept]
    return _nonempty(events, many_items[rows.user] & many_users[rows.item], f"the {k}-core")


def drop_low_ratings(events: Events, min_rating: float) -> Events:
    """The rows with a rating of at least ``min_rating``.

    Raises:
        ValueError: the events have no ratings, or nothing is left.
    """
    rating = events.interactions.rating
    if rating is None:
        raise ValueError(f"'min_rating' is {min_rating}, but '{events.name}' has no ratings")
    return _nonempty(events, rating >= min_rating, f"ratings of at least {min_rating}")


def _nonempty(events: Events, kept: Tensor, what: str) -> Events:
    if bool(kept.all()):
        return events
    if not bool(kept.any()):
        raise ValueError(f"{what} of '{events.name}' leave no rows; use a lower limit")
    return events[kept]
