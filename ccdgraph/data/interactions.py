"""Interactions: the columns every other type is built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interactions:
    """User-item events as columns, in time order.

    Args:
        user: user ids, int64 ``[E]``.
        item: item ids, int64 ``[E]``.
        time: UTC seconds, int64 ``[E]``, or ``None`` where the source has no times.
        rating: float32 ``[E]``, or ``None`` for implicit feedback.

    >>> events = Interactions(torch.tensor([0, 0, 1]), torch.tensor([2, 1, 2]))
    >>> len(events), events[events.user == 0].item.tolist()
    (3, [2, 1])
    """

    user: Tensor
    item: Tensor
    time: Tensor | None = None
    rating: Tensor | None = None

    def __len__(self) -> int:
        return self.user.numel()

    def __getitem__(self, index: Tensor | slice) -> Interactions:
        """The events that a mask ``[E]`` or an index ``[n]`` selects, in its order.

        A slice gives a view of the same memory.
        """
        return Interactions(
            self.user[index],
            self.item[index],
            None if self.time is None else self.time[index],
            None if self.rating is None else self.rating[index],
        )

    def to(self, device: torch.device | str) -> Interactions:
        """The same events on ``device``."""
        return Interactions(
            self.user.to(device),
            self.item.to(device),
            None if self.time is None else self.time.to(device),
            None if self.rating is None else self.rating.to(device),
        )

    @staticmethod
    def cat(parts: Iterable[Interactions]) -> Interactions:
        """All events of ``parts`` one after another; a column missing in one is dropped."""
        parts = list(parts)
        if not parts:
            empty = torch.empty(0, dtype=torch.int64)
            return Interactions(empty, empty.clone())
        times = [p.time for p in parts if p.time is not None]
        ratings = [p.rating for p in parts if p.rating is not None]
        return Interactions(
            torch.cat([p.user for p in parts]),
            torch.cat([p.item for p in parts]),
            torch.cat(times) if len(times) == len(parts) else None,
            torch.cat(ratings) if len(ratings) == len(parts) else None,
        )


@dataclass(frozen=True)
class UserItems:
    """Which items each user has, as CSR: masks, exclusions and ground truth.

    Args:
        indptr: row pointer, int64 ``[U + 1]``.
        item: the items of user ``u`` are ``item[indptr[u]:indptr[u + 1]]``, ascending and unique.
        num_items: size of the catalogue; items are below it.

    >>> events = Interactions(torch.tensor([1, 1]), torch.tensor([3, 0]))
    >>> seen = UserItems.from_interactions([events], num_users=2, num_items=4)
    >>> seen.indptr.tolist(), seen.item.tolist()
    ([0, 0, 2], [0, 3])
    """

    indptr: Tensor
    item: Tensor
    num_items: int

    @classmethod
    def from_interactions(
        cls, parts: Iterable[Interactions], num_users: int, num_items: int
    ) -> Self:
        """Sort and deduplicate the (user, item) pairs of ``parts``."""
        events = Interactions.cat(parts)
        key = torch.unique(events.user * num_items + events.item)
        user = key // num_items
        counts = torch.bincount(user, minlength=num_users)
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(indptr, key % num_items, num_items)

    @property
    def num_users(self) -> int:
        """Number of rows."""
        return self.indptr.numel() - 1

    @property
    def degree(self) -> Tensor:
        """Number of items of each user, ``[U]``."""
        return self.indptr.diff()

    def entries(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (row in ``user``, item) of every item of every listed user, ``[n]`` each."""
        count = self.degree[user]
        row = torch.repeat_interleave(torch.arange(len(user), device=user.device), count)
        start = self.indptr[user] - (count.cumsum(0) - count)
        return row, self.item[start[row] + torch.arange(len(row), device=user.device)]

    def padded_entries(
        self, user: Tensor, size: int, real: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`entries` filled up to ``size`` with row ``len(user)`` and any item.

        The length is known without waiting for the device; ``size`` must not be too small. With
        ``real [B]`` the other rows have no entries.
        """
        count = self.degree[user] if real is None else self.degree[user] * real
        end = count.cumsum(0)
        place = torch.arange(size, device=user.device)
        row = torch.searchsorted(end, place, right=True)
        start = torch.cat([self.indptr[user] - (end - count), end.new_zeros(1)])
        return row, self.item[(start[row] + place).clamp_(max=max(self.item.numel() - 1, 0))]

    def within(self, num_users: int, num_items: int) -> UserItems:
        """The lists of the first ``num_users`` users, without items beyond ``num_items``."""
        user = torch.arange(min(num_users, self.num_users), device=self.item.device)
        row, item = self.entries(user)
        kept = Interactions(row, item)[item < num_items]
        return UserItems.from_interactions([kept], num_users, num_items)

    def keys(self) -> Tensor:
        """``user * num_items + item`` of every entry, ascending, ``[nnz]``."""
        user = torch.repeat_interleave(
            torch.arange(self.num_users, device=self.item.device), self.degree
        )
        return user * self.num_items + self.item

    def to(self, device: torch.device | str) -> UserItems:
        """The same lists on ``device``."""
        return UserItems(self.indptr.to(device), self.item.to(device), self.num_items)


def is_in(keys: Tensor, sorted_keys: Tensor) -> Tensor:
    """Which of ``keys`` occur in ``sorted_keys`` (ascending): a mask of the shape of ``keys``."""
    if sorted_keys.numel() == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    place = torch.searchsorted(sorted_keys, keys).clamp_(max=sorted_keys.numel() - 1)
    return sorted_keys[place] == keys
