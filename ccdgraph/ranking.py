"""Ranking: exact top-k lists and exact ranks, chunked over users under a memory budget.

Everywhere the order is (score descending, id ascending), ties included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.topk import topk

BUDGET = 128 * 2**20
# On a CPU: the C library maps blocks above 32 MiB anew each time, and their pages cost like a pass.
BLOCK = 16 * 2**20

Result = TypeVar("Result")


class Scorer(Protocol):
    """Anything that scores the whole catalogue for a few users: models, ensembles, proxies."""

    @property
    def num_users(self) -> int:
        """Users it can score; ids are below it."""

    @property
    def num_items(self) -> int:
        """Items it scores."""

    def scores(self, user: Tensor) -> Tensor:
        """Scores of every item for each listed user, ``[B] -> [B, I]``."""


def user_chunks(
    user: Tensor, num_items: int, *, budget: int = BUDGET, copies: int = 3
) -> Iterator[Tensor]:
    """Cut ``user`` so that ``copies`` float32 ``[n, num_items]`` fit in ``budget``, or in ones.

    >>> [len(u) for u in user_chunks(torch.arange(5), 10, budget=240, copies=3)]
    [2, 2, 1]
    """
    yield from user.split(max(1, budget // (copies * max(1, num_items) * 4)))


def by_chunks(
    work: Callable[[Tensor], Result],
    user: Tensor,
    num_items: int,
    *,
    budget: int = BUDGET,
    copies: int = 3,
) -> list[Result]:
    """What ``work`` makes of each piece of ``user``, as :func:`user_chunks` cuts it.

    Where the device has no room for a piece, all that is left is cut into halves of its size and
    the work goes on; a single user that does not fit is an error. On a CPU a block of scores takes
    ``BLOCK`` bytes at the most; on a CUDA device pieces are eight times as large, since a launch
    costs more there than a cache miss.

    Args:
        work: takes users ``[n]`` and changes nothing: it may be cut off and called again.
        user: ``[N]``.
        num_items: columns of a block of scores.
        budget: bytes, as in :func:`user_chunks`.
        copies: blocks alive at once.

    >>> by_chunks(len, torch.arange(5), 10, budget=240, copies=3)
    [2, 2, 1]
    """
    budget = 8 * budget if user.is_cuda else min(budget, copies * BLOCK)
    results, left = [], list(user_chunks(user, num_items, budget=budget, copies=copies))
    while left:
        try:
            results.append(work(left[0]))
            left = left[1:]
            continue
        except torch.OutOfMemoryError:
            if len(left[0]) < 2:
                raise
        # Not in the handler: until it ends, the traceback holds what did not fit.
        torch.cuda.empty_cache()
        left = list(torch.cat(left).split((len(left[0]) + 1) // 2))
    return results


def mask_seen(scores: Tensor, user: Tensor, seen: UserItems) -> Tensor:
    """Write ``-inf`` at the seen items of each row, in place, and return ``scores``.

    The caller must own ``scores``: a scorer may have returned a view of what it keeps.

    Args:
        scores: ``[B, I]``, rows in the order of ``user``.
        user: ``[B]``.
        seen: items to hide; users and items it knows must cover ``user`` and lie below ``I``.
    """
    row, item = seen.entries(user)
    scores[row, item] = float("-inf")
    return scores


@torch.no_grad()
def recommend_lists(
    scorer: Scorer,
    user: Tensor,
    k: int,
    seen: UserItems | None = None,
    *,
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """The ``k`` best unseen items of each user, best first.

    A user with fewer than ``k`` unseen items has a short list: the rest of the row is padding,
    item ``-1`` and score ``-inf``, so ``item >= 0`` is the mask of the real entries. An item that
    the scorer itself scores ``-inf`` is never listed.

    Args:
        scorer: scores the catalogue; what it returns is never written to.
        user: ``[n]``.
        k: length of the lists, at most the size of the catalogue.
        seen: items to leave out.
        budget: bytes that the ``[chunk, I]`` blocks alive at once may take.

    Returns:
        Scores and item ids, ``[n, k]`` each, on the device of the scorer's scores.
    """
    _check_request(scorer, user, k, seen)
    own: Tensor | None = None  # what is masked, so that a score matrix the scorer keeps is not

    def best(chunk: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal own, seen
        scores = scorer.scores(chunk)
        if seen is not None:
            seen = seen.to(scores.device)
            if not isinstance(scorer, Embeddings):  # which make a new block every time
                own = torch.empty_like(scores) if own is None else own
                scores = own[: len(chunk)].copy_(scores)
            mask_seen(scores, chunk.to(scores.device), seen)
        return topk(scores, k)

    lists = by_chunks(best, user, scorer.num_items, budget=budget)
    score, item = (torch.cat(parts) for parts in zip(*lists, strict=True))
    if score.isnan().any():
        raise ValueError("'scorer' returned NaN scores; the model has diverged")
    return score, item.masked_fill_(score == float("-inf"), -1)


def _check_request(scorer: Scorer, user: Tensor, k: int, seen: UserItems | None) -> None:
    """Refuse lists that the scorer or the mask cannot give."""
    if not 1 <= k <= scorer.num_items:
        raise ValueError(f"'k' is {k}, expected 1 to {scorer.num_items}, the size of the catalogue")
    low, high = torch.stack(user.aminmax()).tolist() if len(user) else (0, -1)
    if low < 0 or high >= scorer.num_users:
        raise ValueError(
            f"'user' holds ids {low} to {high}, the scorer knows 0 to {scorer.num_users - 1}; "
            "grow it first"
        )
    if seen is not None and (high >= seen.num_users or seen.num_items > scorer.num_items):
        raise ValueError(
            f"'seen' covers {seen.num_users} users and {seen.num_items} items, expected at least "
            f"{high + 1} users and at most {scorer.num_items} items"
        )


def ranks_of(scores: Tensor, item: Tensor) -> Tensor:
    """0-based rank of each listed item in its row, by (score descending, id ascending).

    The listed values cut the score axis into ``N + 1`` buckets per row; counting the catalogue
    into them gives every rank without sorting a row. Needs about five times the memory of
    ``scores``: pass ``copies=5`` to ``user_chunks``.

    Args:
        scores: ``[B, I]``, without NaN.
        item: ``[B, N]``; padding (below 0) gets rank ``I``, behind everything.

    Returns:
        int64 ``[B, N]``.

    >>> ranks_of(torch.tensor([[1.0, 3.0, 3.0, 1.0]]), torch.tensor([[3, 2, -1]])).tolist()
    [[3, 1, 4]]
    """
    num_rows, num_items = scores.shape
    num_listed = item.size(1)
    if item.numel() == 0:
        return item.clone()
    listed = item.clamp(min=0)
    value = scores.gather(1, listed)
    bound = value.sort(1).values
    bucket = torch.searchsorted(bound, scores)  # [B, I]: how many listed values are below
    count = bucket.new_zeros(num_rows, num_listed + 1)
    count.scatter_add_(1, bucket, bucket.new_ones(()).expand_as(bucket))
    from_bucket = count.flip(1).cumsum(1).flip(1)  # [B, N + 1]: items in this bucket or above
    place = torch.searchsorted(bound, value)
    higher = from_bucket.gather(1, place + 1)

    # Only a score equal to a listed one is left: key (row, value, id) counts the smaller ids.
    tie = bound.gather(1, bucket.clamp(max=num_listed - 1)) == scores
    row, column = tie.nonzero(as_tuple=True)
    key = ((row * num_listed + bucket[row, column]) * num_items + column).sort().values
    first = (torch.arange(num_rows, device=item.device)[:, None] * num_listed + place) * num_items
    earlier = torch.searchsorted(key, first + listed) - torch.searchsorted(key, first)
    return (higher + earlier).masked_fill_(item < 0, num_items)
