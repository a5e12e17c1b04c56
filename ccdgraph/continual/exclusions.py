"""Pairs that are no negatives: what has been seen, and what other scorers recommend."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.ranking import Scorer, recommend_lists


def exclusions(
    seen: UserItems, others: Iterable[Scorer], k: int, user: Tensor, *also: Tensor
) -> Tensor:
    """Keys ``user * num_items + item`` of pairs that no negative may be, ascending, ``[n]``.

    Args:
        seen: pairs that have been seen.
        others: scorers whose ``k`` best unseen items are left out too; they may know fewer users
            and items than ``seen``.
        k: length of their lists.
        user: users whose lists count, ``[B]``.
        also: more keys.
    """
    listed = [_listed(other, seen, k, user) for other in others]
    keys: Tensor = torch.cat([seen.keys(), *listed, *also]).unique()
    return keys


def list_keys(user: Tensor, lists: Tensor, num_items: int) -> Tensor:
    """Keys of the pairs of ``user`` ``[B]`` and its ``lists`` ``[B, K]``, padding left out."""
    return (user.unsqueeze(1) * num_items + lists)[lists >= 0]


def _listed(scorer: Scorer, seen: UserItems, k: int, user: Tensor) -> Tensor:
    user = user[user < scorer.num_users]
    known = seen.within(scorer.num_users, scorer.num_items)
    _, item = recommend_lists(scorer, user, min(k, scorer.num_items), known)
    return list_keys(user, item, seen.num_items)
