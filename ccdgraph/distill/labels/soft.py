"""Soft labels: what a teacher says of (user, item) pairs, in memory and in place on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Column = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """What one version of a teacher says of (user, item) pairs of one block.

    Args:
        user: user ids, int64 ``[N]``.
        item: item ids, int64 ``[N]``.
        rank: place of the item in the teacher's ranking of the user, 0 for the best, int64 ``[N]``.
        score: the teacher's scores, float32 ``[N]``.
        version: of the teacher; labels of two versions are never mixed.
        block: index of the block the labels are for.

    >>> lists = torch.tensor([[5, 3], [7, -1]])
    >>> labels = SoftLabels.from_lists(torch.tensor([4, 9]), lists, torch.rand(2, 2), version="a")
    >>> labels.user.tolist(), labels.item.tolist(), labels.rank.tolist()
    ([4, 4, 9], [5, 3, 7], [0, 1, 0])
    """

    user: Tensor
    item: Tensor
    rank: Tensor
    score: Tensor
    version: str
    block: int = 0

    @classmethod
    def from_lists(
        cls, user: Tensor, lists: Tensor, scores: Tensor, *, version: str, block: int = 0
    ) -> Self:
        """Labels from ranked lists, such as those of :func:`ccdgraph.ranking.recommend_lists`.

        Args:
            user: ``[n]``.
            lists: item ids, best first, ``[n, K]``; ``-1`` pads.
            scores: of the listed items, ``[n, K]``.
            version: of the teacher.
            block: the labels are for.
        """
        if lists.shape != scores.shape or lists.shape[:1] != user.shape:
            raise ValueError(
                f"'lists' has shape {tuple(lists.shape)}, 'scores' {tuple(scores.shape)}, 'user' "
                f"{tuple(user.shape)}; expected [n, K], [n, K] and [n]"
            )
        row, rank = (lists >= 0).nonzero(as_tuple=True)
        return cls(user[row], lists[row, rank], rank, scores[row, rank].detach(), version, block)

    def __len__(self) -> int:
        return self.user.numel()

    def padded(self, num_users: int) -> tuple[Tensor, Tensor]:
        """Scores and lists of the users ``0 .. num_users - 1``, as :meth:`StoredLabels.lists`.

        The ranks must be the places in the lists, as :meth:`from_lists` makes them.
        """
        width = int(self.rank.max()) + 1 if len(self) else 0
        score = self.score.new_full((num_users, width), -torch.inf)
        item = self.item.new_full((num_users, width), -1)
        score[self.user, self.rank], item[self.user, self.rank] = self.score, self.item
        return score, item

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same labels on ``device``."""
        columns = (self.user, self.item, self.rank, self.score)
        user, item, rank, score = (column.to(device) for column in columns)
        return SoftLabels(user, item, rank, score, self.version, self.block)


@dataclass(frozen=True, eq=False)
class StoredLabels:
    """The labels of one file, read in place: no more is in memory than the pages asked for.

    Args:
        version: of the teacher.
        block: the labels are for.
        num_items: size of the catalogue that the teacher knew.
        indptr: labels of user ``u`` are rows ``indptr[u]`` to ``indptr[u + 1]``, ``[U + 1]``.
        item: item ids, best first within a user, ``[N]``.
        score: ``[N]``.
        rank: ``[N]``, or ``None`` where the ranks are the places in the lists.
    """

    version: str
    block: int
    num_items: int
    indptr: Column
    item: Column
    score: Column
    rank: Column | None = None

    def __len__(self) -> int:
        return len(self.item)

    @property
    def num_users(self) -> int:
        """Users the teacher knew; those above have no labels."""
        return len(self.indptr) - 1

    def has(self, user: Tensor) -> Tensor:
        """Which of the listed users have any label, ``[B] -> [B]``."""
        return torch.from_numpy(self._spans(user)[1] > 0).to(user.device)

    def coverage(self, user: Tensor | None = None) -> float:
        """Share of the listed users, or of all that the teacher knew, that have any label."""
        user = torch.arange(self.num_users) if user is None else user
        return float(self.has(user).double().mean()) if len(user) else 0.0

    def for_users(self, user: Tensor) -> tuple[SoftLabels, Tensor]:
        """All labels of the listed users, in their order, and which users have any.

        Users without labels, or unknown to the teacher, are missing: they have no row and a
        ``False`` in the mask ``[B]``, which a term is to leave out of its sum.

        Args:
            user: ``[B]``; the labels are on its device.
        """
        start, count = self._spans(user)
        end = count.cumsum()
        number = int(end[-1]) if len(end) else 0
        place = np.arange(number) + np.repeat(start - (end - count), count)
        if self.rank is None:
            rank = place - np.repeat(start, count)
        else:
            rank = self.rank[place].astype(np.int64)
        columns = (
            user.repeat_interleave(torch.from_numpy(count).to(user.device)),
            torch.from_numpy(self.item[place].astype(np.int64)),
            torch.from_numpy(rank),
            torch.from_numpy(self.score[place].astype(np.float32, copy=False)),
        )
        labels = SoftLabels(*columns, self.version, self.block).to(user.device)
        return labels, torch.from_numpy(count > 0).to(user.device)

    def lists(self, user: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """The first ``k`` labels of the listed users as padded lists.

        Padding is item ``-1`` and score ``-inf``, so the lists go where those of a teacher in the
        same process go; a missing user has a row of padding.

        Args:
            user: ``[B]``.
            k: length of the lists; that of the longest by default.

        Returns:
            Scores and item ids, ``[B, k]`` each, as :func:`ccdgraph.ranking.recommend_lists`.
        """
        start, count = self._spans(user)
        k = int(count.max(initial=0)) if k is None else k
        real = np.arange(k) < count[:, None]
        place = (start[:, None] + np.arange(k))[real]
        item = np.full((len(start), k), -1, dtype=np.int64)
        score = np.full((len(start), k), -np.inf, dtype=np.float32)
        item[real], score[real] = self.item[place], self.score[place]
        return torch.from_numpy(score).to(user.device), torch.from_numpy(item).to(user.device)

    def _spans(self, user: Tensor) -> tuple[Column, Column]:
        """First row and number of rows of every listed user, int64 ``[B]`` each."""
        wanted = user.cpu().numpy()
        if len(wanted) and wanted.min() < 0:
            raise ValueError(f"'user' holds id {wanted.min()}, expected ids of 0 and above")
        # A user above all the teacher knew gets the empty span at the end.
        first = self.indptr[np.minimum(wanted, self.num_users)].astype(np.int64)
        last = self.indptr[np.minimum(wanted + 1, self.num_users)].astype(np.int64)
        return first, last - first
