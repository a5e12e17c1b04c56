"""How the files of published data sets are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_1990, _2100 = 631_152_000, 4_102_444_800


@dataclass(frozen=True)
class Layout:
    """One kind of file.

    Args:
        files: shell patterns of the file names, ``.gz`` aside; one file for each pattern.
        user: column or JSON field of the user.
        item: of the item.
        time: of the time, if there is one.
        rating: of the rating, if there is one.
        event: of the kind of event, if there is one.
        columns: all columns, where the file has no header line; ``"::"`` separates as well.
        separator: what stands between columns.
        unit: of the times: epoch numbers, ISO ``"date"``, or ``"clock"`` for
            ``Tue Apr 03 18:00:09 +0000 2012``.
        kind: columns of text, JSON lines, or a user and its items on a line.
    """

    files: tuple[str, ...]
    user: str = "user"
    item: str = "item"
    time: str | None = "time"
    rating: str | None = None
    event: str | None = None
    columns: tuple[str, ...] = ()
    separator: str = ","
    unit: Literal["s", "ms", "date", "clock"] = "s"
    kind: Literal["text", "json", "lists"] = "text"

    @property
    def roles(self) -> dict[str, str]:
        """The columns that are read, by role."""
        roles = (("user", self.user), ("item", self.item), ("time", self.time))
        more = (("rating", self.rating), ("event", self.event))
        return {role: column for role, column in (*roles, *more) if column is not None}


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Args:
        home: page that tells the licence and hands out the files.
        layouts: the kinds of files it comes in; one without a known name is read by the first.
        scale: lowest and highest rating.
        events: every kind of event.
        item_form: regular expression that the first row's item matches.
        mixed_up: what to do where it does not.
        span: first second of the times, and the one after the last.
        drop_outside: rows outside ``span`` are known to occur, and are left out.
        archive: address of the archive, where its terms let anyone fetch it for research and its
            publisher gives a checksum.
        md5: that checksum.
    """

    home: str
    layouts: tuple[Layout, ...]
    scale: tuple[float, float] | None = None
    events: tuple[str, ...] = ()
    item_form: str = ""
    mixed_up: str = ""
    span: tuple[int, int] = (_1990, _2100)
    drop_outside: bool = False
    archive: str = ""
    md5: str = ""
