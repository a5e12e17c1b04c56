"""Exact top-k lists of blocks of scores, ties to the smaller id."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# On a CUDA device: scores of a block from which fewer passes over it outweigh more launches.
_LARGE = 2**22
# Keys of a block up to which sorting them all is one kernel that ends before a selection does.
_FEW = 2**16


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best items of each row, best first; ties go to the smaller id.

    Exact where ``torch.topk`` is not: rows with a tie inside the list are put in id order, and
    rows with a tie across its end are selected again. ``-inf`` ranks last, in id order too. A NaN
    ranks first, so one anywhere in a row shows in the returned values.

    Args:
        scores: ``[B, I]``.
        k: length of the lists, at most ``I``.

    Returns:
        Values ``[B, k]`` and item ids ``[B, k]``.

    >>> topk(torch.tensor([[1.0, 3.0, 3.0, 1.0]]), 3)[1].tolist()
    [[1, 2, 0]]
    """
    num_items = scores.size(1)
    if not 1 <= k <= num_items:
        raise ValueError(f"'k' is {k}, expected 1 to {num_items}, the size of the catalogue")
    values, index = _largest(scores, min(k + 1, num_items))
    tied = values[:, 1:] == values[:, :-1]
    values, index = values[:, :k].contiguous(), index[:, :k].contiguous()
    some = tied.any(1).nonzero().squeeze(1)  # the one wait for the device where there are no ties
    if len(some):
        _settle(scores, values, index, some, some[tied[some, k - 1 :].any(1)])
    return values, index


def _settle(scores: Tensor, values: Tensor, index: Tensor, tied: Tensor, crossing: Tensor) -> None:
    """Puts the lists of ``tied`` rows in order, in place, and chooses anew in ``crossing`` ones."""
    k = index.size(1)
    # Eighths keep the copies a repair makes small beside the scores themselves.
    for row in crossing.split(max(1, len(scores) // 8)):
        if len(row):
            index[row] = _smallest_ids(scores[row], values[row, -1:], k)
    by_id = index[tied].sort(1).values
    best, order = scores[tied[:, None], by_id].sort(dim=1, descending=True, stable=True)
    values[tied], index[tied] = best, by_id.gather(1, order)


def _smallest_ids(scores: Tensor, threshold: Tensor, k: int) -> Tensor:
    """The items above each row's k-th best value, then the smallest ids at it, ``[R, k]``."""
    above = ~(scores <= threshold)  # NaN counts as above, as in torch.topk
    tie = scores == threshold
    room = k - above.sum(1, keepdim=True)
    keep = above | (tie & (tie.cumsum(1, dtype=torch.int32) <= room))
    return keep.nonzero()[:, 1].view(len(scores), k)


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``scores.topk(k)``, of large blocks on a CUDA device by groups of neighbouring columns."""
    ratio = scores.size(1) / k
    if not scores.is_cuda or scores.numel() < _LARGE or ratio < 64:
        values, index = scores.topk(k, dim=1)
        return values, index
    # Columns over width and k times width are what is left to choose from: least at the root.
    return _by_groups(scores, k, 2 ** round(math.log2(ratio) / 2))


def _by_groups(scores: Tensor, k: int, width: int) -> tuple[Tensor, Tensor]:
    """``scores.topk(k)``, from the ``k`` groups of ``width`` columns with the largest maxima.

    A value above the k-th largest lies in a group whose maximum is above it too, of which there are
    fewer than ``k``; and ``k`` maxima that are as large as it are themselves enough.
    """
    cut = scores.size(1) // width * width
    groups = scores[:, :cut].unflatten(1, (-1, width))
    near = groups.amax(2).topk(k, dim=1, sorted=False).indices
    inside = groups.gather(1, near.unsqueeze(2).expand(-1, -1, width)).flatten(1)
    values, place = torch.cat([inside, scores[:, cut:]], dim=1).topk(k, dim=1)
    group = near.gather(1, (place // width).clamp(max=k - 1))
    index = torch.where(place < k * width, group * width + place % width, place - k * width + cut)
    return values, index


def keyed_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """:func:`topk` of float32 ``scores`` without a wait for the device, so it can be recorded.

    Score and id make one integer, in which no two entries of a row are equal. Large rows go by
    groups of neighbouring columns as there: an entry of the list lies in one of the ``k`` groups
    with the best maxima, of equal ones the first, since every better group holds a better entry.

    >>> keyed_topk(torch.tensor([[1.0, 3.0, 3.0, 1.0]]), 3)[1].tolist()
    [[1, 2, 0]]
    """
    column = torch.arange(scores.size(1), device=scores.device).expand(scores.shape)
    ratio = scores.size(1) / k
    if ratio >= 64:
        width = 2 ** round(math.log2(ratio) / 2)
        cut = scores.size(1) // width * width
        best = scores[:, :cut].unflatten(1, (-1, width)).amax(2)
        group = torch.arange(best.size(1), device=scores.device).expand(best.shape)
        near = _best(_keys(best, group), k)[0]
        first = (_ids(near) * width).unsqueeze(2)
        inside = (first + column[0, :width]).flatten(1)
        column = torch.cat([inside, column[:, cut:]], dim=1)
        scores = torch.cat([scores.gather(1, inside), scores[:, cut:]], dim=1)
    place = _best(_keys(scores, column), k)[1]
    return scores.gather(1, place), column.gather(1, place)


def _best(keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``keys.topk(k)``; of a few rows by a sort, since a selection passes over a key bit by bit."""
    if keys.numel() < _FEW:
        values, index = keys.sort(dim=1, descending=True)
        return values[:, :k], index[:, :k]
    values, index = keys.topk(k, dim=1)
    return values, index


def _keys(scores: Tensor, index: Tensor) -> Tensor:
    """Integers in the order (score, then the smaller index); NaN is the largest score."""
    # Negative floats fall as their bits grow. The sum makes one zero of the two.
    bits = torch.where(scores.isnan(), float("nan"), scores + 0.0).view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.long() << 32) + (0xFFFFFFFF - index)


def _ids(key: Tensor) -> Tensor:
    return 0xFFFFFFFF - (key & 0xFFFFFFFF)
