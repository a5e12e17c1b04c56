"""Reading interactions from files and frames."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccdgraph.data import filters
from ccdgraph.data.columns import PER_SECOND, external_ids, float_values, utc_seconds
from ccdgraph.data.events import Events
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.tables import read_table, require_column, where
from ccdgraph.data.vocabulary import Vocabulary

_USUAL = {
    "user": "user userid uid reviewerid customerid visitorid memberid accountid sessionid u",
    "item": "item itemid iid movieid businessid productid parentasin asin articleid trackid "
    "artistid songid bookid isbn venueid locationid placeid i",
    "time": "time timestamp ts unixreviewtime datetime date createdat utctimestamp tdat t",
    "rating": "rating ratings stars overall score weight count",
}
_REQUIRED = ("user", "item")


def read_interactions(
    source: str | Path | Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    time_unit: str | None = None,
    header: Sequence[str] | None = None,
    duplicates: filters.Duplicates = "keep",
    min_rating: float | None = None,
    k_core: int = 0,
    name: str | None = None,
) -> Events:
    """Read interactions from a file or a frame, sorted by time and numbered by first appearance.

    Files: CSV and TSV (plain, ``.gz``, ``.zip``), Parquet (a file or a folder of parts), RecBole
    ``.inter`` with its typed header. Frames: pandas, polars, Arrow, a dict of columns; anything
    with ``__arrow_c_stream__``. Ids keep leading zeros. Times become whole UTC seconds; rows of one
    time keep their order; without a time column the order of the rows is the order of time. Filters
    apply in the order rating, duplicates, k-core.

    Args:
        source: path or frame.
        user: name of the user column; by default one of the usual names, for all four.
        item: name of the item column.
        time: name of the time column: epoch numbers, ISO text or dates.
        rating: name of the rating or count column.
        time_unit: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``; by default read off the magnitude.
        header: names of all columns of a text file that has no header line.
        duplicates: rows of one (user, item) pair: ``"keep"`` all, the ``"first"``, the ``"last"``,
            or the first with the ``"sum"`` of the ratings.
        min_rating: drop rows rated lower.
        k_core: keep users with ``k`` distinct items and items with ``k`` users, iterated.
        name: what reports call the data, by default the file's name.

    Raises:
        ValueError: a column is missing, a value cannot be used (the message names the row, counted
            from 1 below the header), or the file is empty, damaged or cut short.
        TypeError: the source is neither a path nor a frame.

    >>> events = read_interactions({"user": ["b", "a"], "item": [7, 7], "time": [20, 10]})
    >>> events.users.tolist(), events.items.tolist(), events.interactions.time.tolist()
    (['a', 'b'], [7], [10, 20])
    """
    given = {"user": user, "item": item, "time": time, "rating": rating}
    place = where(source)
    # No name for the table: its columns go as soon as they are read.
    events = _events(
        read_table(source, lambda fields: _roles(fields, given, place), header=header),
        place,
        time_unit,
        name or _name(source),
    )
    if min_rating is not None:
        events = filters.drop_low_ratings(events, min_rating)
    return filters.k_core(filters.deduplicate(events, duplicates), k_core)


def _events(table: Any, place: str, time_unit: str | None, name: str) -> Events:
    import pyarrow as pa

    if time_unit is not None and time_unit not in PER_SECOND:
        raise ValueError(f"'time_unit' is {time_unit!r}; it must be one of {', '.join(PER_SECOND)}")
    order, seconds, unit, rating = None, None, None, None
    if "time" in table.column_names:
        raw, whole, unit = utc_seconds(table["time"], f"time in {place}", time_unit)
        # A log is in order already, and copies of its columns are what reading it costs.
        if (raw[1:] < raw[:-1]).any():
            order = np.argsort(raw, kind="stable")
        del raw
        seconds = torch.from_numpy(_ordered(whole, order))
        table = table.drop_columns("time")
    if "rating" in table.column_names:
        values = float_values(table["rating"], f"rating in {place}")
        rating = torch.from_numpy(_ordered(values, order))
        table = table.drop_columns("rating")
    user, users = _numbered(_ordered(external_ids(table["user"], f"user in {place}"), order))
    table = table.drop_columns("user")
    item, items = _numbered(_ordered(external_ids(table["item"], f"item in {place}"), order))
    del table
    pa.default_memory_pool().release_unused()
    return Events(Interactions(user, item, seconds, rating), users, items, name, unit)


def _ordered(
    values: np.ndarray[Any, Any], order: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any]:
    return values if order is None else values[order]


def _numbered(ids: np.ndarray[Any, Any]) -> tuple[torch.Tensor, Vocabulary]:
    import pandas as pd

    codes, known = pd.factorize(ids)
    return torch.from_numpy(codes.astype(np.int64, copy=False)), Vocabulary(known)


def _roles(fields: Sequence[str], given: dict[str, str | None], place: str) -> dict[str, str]:
    """Which column plays which role, ``{"user": "user_id:token", ...}``."""
    bare = {field.split(":")[0]: field for field in fields}
    usual = {re.sub(r"[^a-z0-9]", "", field.lower()): field for field in bare}
    roles: dict[str, str] = {}
    for role, asked in given.items():
        if asked is not None:
            if asked not in fields:
                require_column(asked, list(bare), place)
            roles[role] = asked if asked in fields else bare[asked]
            continue
        found = next((name for name in _USUAL[role].split() if name in usual), None)
        if found is not None:
            roles[role] = bare[usual[found]]
        elif role in _REQUIRED:
            raise ValueError(_missing(role, usual, fields, place))
    return roles


def _missing(role: str, usual: dict[str, str], fields: Sequence[str], place: str) -> str:
    close = [
        usual[match]
        for name in _USUAL[role].split()
        for match in difflib.get_close_matches(name, list(usual), n=1, cutoff=0.7)
    ]
    hint = f"{role}={close[0]!r}?" if close else f"{role}=..."
    verb = "did you mean" if close else "name it with"
    return f"{place} has no column known as the {role}, only {', '.join(fields)}; {verb} {hint}"


def _name(source: str | Path | Any) -> str:
    return Path(source).resolve().name.split(".")[0] if isinstance(source, str | Path) else "events"
