"""The consensus of many rankings, from their top lists alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.topk import topk


@dataclass(frozen=True)
class Listed:
    """Lists as a scorer: the higher an item stands, the more it scores; others score 0.

    Args:
        lists: ids ``[U, K]``, best first; ``-1`` pads.
        num_items: size of the catalogue.

    >>> Listed(torch.tensor([[2, 0], [1, -1]]), 3).scores(torch.tensor([0, 1])).tolist()
    [[1.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    """

    lists: Tensor
    num_items: int

    @property
    def num_users(self) -> int:
        """Number of lists."""
        return len(self.lists)

    def scores(self, user: Tensor) -> Tensor:
        """``[B] -> [B, I]``."""
        listed = self.lists[user]
        value = torch.arange(listed.size(1), 0, -1, device=listed.device).float()
        column = torch.where(listed >= 0, listed, self.num_items)  # one more takes what pads
        scores = value.new_zeros(len(user), self.num_items + 1)
        return scores.scatter_(1, column, value.expand(listed.shape))[:, :-1]


def consensus(lists: Tensor, weight: Tensor, k: int) -> Tensor:
    r"""Items with the largest total weight over all lists, best first, ``[U, k]``.

    .. math:: c_{ui} = \sum_{s} \sum_{r} 1[l_{sur} = i] \, w_{sur}

    The entries of a user are sorted by id and summed in segments, so the cost is that of the lists
    and no matrix of users by items exists. Ties go to the smaller id; ``-1`` pads.

    Args:
        lists: ids of ``S`` rankings ``[S, U, K]``; ``-1`` pads.
        weight: what each entry adds ``[S, U, K]``.
        k: length of the result.

    >>> lists = torch.tensor([[[4, 2]], [[2, 7]]])
    >>> consensus(lists, torch.tensor([[[1.0, 0.5]], [[0.9, 0.2]]]), 2)
    tensor([[2, 4]])
    """
    entry, order = lists.transpose(0, 1).flatten(1).sort(1)
    value = weight.transpose(0, 1).flatten(1).gather(1, order)
    segment = (entry[:, 1:] != entry[:, :-1]).cumsum(1)
    segment = torch.cat([segment.new_zeros(len(entry), 1), segment], dim=1)
    total = torch.zeros_like(value).scatter_add_(1, segment, value)
    item = torch.full_like(entry, -1).scatter_(1, segment, entry)
    total = total.masked_fill(item < 0, float("-inf"))
    best, place = topk(total, min(k, total.size(1)))
    found = item.gather(1, place).masked_fill(best == float("-inf"), -1)
    return torch.nn.functional.pad(found, (0, k - found.size(1)), value=-1)


def ranks_in(lists: Tensor, item: Tensor) -> Tensor:
    """Place of every item in the list of its row, or the list's length, ``[..., n]``.

    Args:
        lists: distinct ids ``[..., R]``; ``-1`` pads.
        item: ids to look up ``[..., n]``; ``-1`` is in no list.

    >>> ranks_in(torch.tensor([[5, 2, 9]]), torch.tensor([[9, 4, -1]])).tolist()
    [[2, 3, 3]]
    """
    ordered, place = lists.sort(-1)
    near = torch.searchsorted(ordered, item).clamp_(max=lists.size(-1) - 1)
    found = (ordered.gather(-1, near) == item) & (item >= 0)
    return torch.where(found, place.gather(-1, near), lists.size(-1))


def agreed(looks: list[Tensor], k: int) -> Tensor:
    """The consensus of several heads' lists at several looks, ``[U, k]``.

    Args:
        looks: ids ``[H, U, R]``, oldest first; the last one is ranked, all tell the stability.
        k: how much of each list counts, and the length of the consensus.
    """
    lists = looks[-1][:, :, :k].contiguous()
    place = torch.arange(lists.size(2), device=lists.device)
    rank = torch.stack([ranks_in(look, lists) for look in looks]).float()
    weight = (-place / 10).exp() + (-rank.std(0, correction=0) / 100).exp()
    return consensus(lists.long(), weight, k)
