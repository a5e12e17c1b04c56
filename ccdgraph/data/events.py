"""Events: interactions read from a source, with the external ids they came with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions
from ccdgraph.data.vocabulary import Vocabulary

_PIECE = 2**22  # rows looked at together, so that a check holds no copy of a column


@dataclass(frozen=True)
class Events:
    """Interactions in time order with their vocabularies; what ``split_stream`` cuts.

    Args:
        interactions: the rows, ids numbered by first appearance.
        users: external user ids.
        items: external item ids.
        name: what reports call the data.
        time_unit: unit of the times in the source (``"s"``, ``"ms"``, ``"us"``, ``"ns"`` or
            ``"date"``), or ``None`` without times; stored times are always seconds.

    Raises:
        ValueError: times fall, or ids do not follow first appearance; ``Events.from_rows`` takes
            rows in any order.
    """

    interactions: Interactions
    users: Vocabulary
    items: Vocabulary
    name: str = "events"
    time_unit: str | None = None

    def __post_init__(self) -> None:
        rows = self.interactions
        if rows.time is not None and bool((rows.time[1:] < rows.time[:-1]).any()):
            raise ValueError("'interactions' are not in time order; build with Events.from_rows")
        for field, ids, size in (
            ("user", rows.user, len(self.users)),
            ("item", rows.item, len(self.items)),
        ):
            if not _in_order_of_appearance(ids, size):
                raise ValueError(
                    f"'interactions.{field}' is not numbered by first appearance over "
                    f"{size} {field}s; build with Events.from_rows"
                )

    @classmethod
    def from_rows(
        cls,
        interactions: Interactions,
        users: Vocabulary,
        items: Vocabulary,
        *,
        name: str = "events",
        time_unit: str | None = None,
    ) -> Self:
        """Sort rows by time, ties in their order, and number entities by first appearance.

        Entities of the vocabularies without a row are left out.

        >>> rows = Interactions(torch.tensor([0, 1]), torch.tensor([4, 2]), torch.tensor([9, 8]))
        >>> events = Events.from_rows(rows, Vocabulary(["a", "b"]), Vocabulary(range(5)))
        >>> events.interactions.user.tolist(), events.users.tolist(), events.items.tolist()
        ([0, 1], ['b', 'a'], [2, 4])
        """
        if interactions.time is not None:
            interactions = interactions[interactions.time.argsort(stable=True)]
        user, users = _renumber(interactions.user, users)
        item, items = _renumber(interactions.item, items)
        rows = Interactions(user, item, interactions.time, interactions.rating)
        return cls(rows, users, items, name, time_unit)

    def __len__(self) -> int:
        return len(self.interactions)

    def __getitem__(self, index: Tensor) -> Events:
        """The events that a mask ``[E]`` or an index ``[n]`` selects, entities numbered anew."""
        return Events.from_rows(
            self.interactions[index],
            self.users,
            self.items,
            name=self.name,
            time_unit=self.time_unit,
        )

    @property
    def date_range(self) -> tuple[str, str] | None:
        """First and last UTC date and time in ISO form, or ``None`` without times."""
        return date_range(self.interactions)


def date_range(rows: Interactions) -> tuple[str, str] | None:
    """First and last UTC date and time of ``rows`` in ISO form; ``None`` without rows or times.

    >>> date_range(Interactions(torch.tensor([0]), torch.tensor([0]), torch.tensor([86400])))
    ('1970-01-02 00:00:00', '1970-01-02 00:00:00')
    """
    if rows.time is None or len(rows) == 0:
        return None
    return iso(int(rows.time.min())), iso(int(rows.time.max()))


def iso(seconds: int) -> str:
    """UTC seconds as ``YYYY-MM-DD hh:mm:ss``; the number itself outside the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def _in_order_of_appearance(ids: Tensor, size: int) -> bool:
    """Whether every id of ``0 .. size - 1`` occurs, and none before a smaller one."""
    highest = ids.new_full((1,), -1)
    for piece in ids.split(_PIECE):
        running = torch.cat([highest, piece]).cummax(0).values
        if bool((running.diff() > 1).any()):
            return False
        highest = running[-1:]
    return int(highest) + 1 == size


def _renumber(ids: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Vocabulary]:
    import pandas as pd

    codes, kept = pd.factorize(ids.numpy())
    return torch.from_numpy(codes.astype("int64", copy=False)), Vocabulary(vocabulary[kept])
