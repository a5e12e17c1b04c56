"""A batch of columns as codes, seconds and ratings, with the checks of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccdgraph.data.columns import PER_SECOND, float_values, utc_seconds
from ccdgraph.data.datasets.layouts import Dataset, Layout
from ccdgraph.data.events import iso
from ccdgraph.data.tables import RowError, refuse_rows

if TYPE_CHECKING:
    import pyarrow as pa

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"^[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{2}) (\d{2}:\d{2}:\d{2}) ([+-]\d{4}) (\d{4})$"


@dataclass(frozen=True)
class Part:
    """The rows of one batch that are kept.

    Args:
        user: external ids, dictionary-encoded text.
        item: external ids, dictionary-encoded text.
        ticks: times to sort by, ``[E]``.
        time: whole UTC seconds, ``[E]``.
        rating: ratings, ``[E]``.
    """

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    ticks: NDArray[Any] | None
    time: NDArray[np.int64] | None
    rating: NDArray[np.float32] | None


def convert(
    batch: pa.RecordBatch,
    first: int,
    layout: Layout,
    dataset: Dataset,
    *,
    place: str,
    events: Sequence[str] | None,
) -> Part:
    """The rows of a batch that are kept; ``first`` rows of the file came before it.

    Raises:
        ValueError: a value cannot be used; the message names the row of the file.
    """
    import pyarrow as pa

    table = pa.Table.from_batches([batch])
    ticks, time, rating = None, None, None
    kept = np.ones(len(table), dtype=bool)
    try:
        if first == 0:
            _refuse_mixed_up(table["item"], dataset, f"item in {place}")
        user, item = (_encode(table[side], f"{side} in {place}") for side in ("user", "item"))
        if layout.event is not None:
            kept &= _of_kind(table["event"], dataset, events, f"event in {place}")
        if layout.time is not None:
            ticks, time, inside = _times(table["time"], layout, dataset, f"time in {place}")
            kept &= inside
        if layout.rating is not None:
            rating = _ratings(table["rating"], dataset, f"rating in {place}")
    except RowError as error:
        raise error.after(first) from None
    part = Part(user, item, ticks, time, rating)
    return part if kept.all() else _only(part, kept)


def _only(part: Part, kept: NDArray[np.bool_]) -> Part:
    import pyarrow as pa

    mask = pa.array(kept)
    return Part(
        part.user.filter(mask),
        part.item.filter(mask),
        None if part.ticks is None else part.ticks[kept],
        None if part.time is None else part.time[kept],
        None if part.rating is None else part.rating[kept],
    )


def _refuse_mixed_up(item: pa.ChunkedArray, dataset: Dataset, place: str) -> None:
    import pyarrow.compute as pc

    if dataset.item_form and item[0].as_py() is not None:
        fits = pc.match_substring_regex(item.slice(0, 1), dataset.item_form)
        refuse_rows(item, pc.invert(fits), place, dataset.mixed_up)


def _encode(column: pa.ChunkedArray, place: str) -> pa.DictionaryArray:
    import pyarrow.compute as pc

    refuse_rows(column, pc.is_null(column), place, "drop the row or fill in the id")
    encoded = column.combine_chunks().dictionary_encode()
    negative = pc.match_substring_regex(encoded.dictionary, "^-[0-9]+$")
    if pc.any(negative).as_py():
        hint = "a number that is an id is not negative; drop the row"
        refuse_rows(column, pc.take(negative, encoded.indices), place, hint)
    return encoded


def _of_kind(
    column: pa.ChunkedArray, dataset: Dataset, events: Sequence[str] | None, place: str
) -> NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.is_in(column, value_set=pa.array(dataset.events))
    hint = f"it must be one of {', '.join(dataset.events)}"
    refuse_rows(column, pc.invert(known), place, hint)
    chosen = dataset.events if events is None else tuple(events)
    return np.asarray(pc.is_in(column, value_set=pa.array(chosen)))


def _times(
    column: pa.ChunkedArray, layout: Layout, dataset: Dataset, place: str
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.bool_]]:
    """What orders the rows, their seconds, and which of them the data set spans."""
    expected = layout.unit if layout.unit in PER_SECOND else "date"
    text = _iso_text(column) if layout.unit == "clock" else column
    given = layout.unit if layout.unit in PER_SECOND else None
    ticks, seconds, unit = utc_seconds(text, place, given)
    if (unit == "date") != (expected == "date"):
        refuse_rows(column, [True], place, f"it must be in {expected!r} as published")
    if unit == "s" and ticks.dtype == np.int64:
        ticks = seconds  # held once
    since, until = dataset.span
    inside: NDArray[np.bool_] = (seconds >= since) & (seconds < until)
    if not dataset.drop_outside:
        start, end = iso(since)[:4], iso(until)[:4]
        hint = f"in {expected!r} it is not between {start} and {end}; repair or drop the row"
        refuse_rows(column, ~inside, place, hint)
    return ticks, seconds, inside


def _iso_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """``Tue Apr 03 18:00:09 +0000 2012`` as ISO text; anything else as it is."""
    import pyarrow.compute as pc

    text = pc.replace_substring_regex(column, _CLOCK, r"\5-\1-\2T\3\4")
    for number, month in enumerate(_MONTHS, 1):
        text = pc.replace_substring(text, f"-{month}-", f"-{number:02d}-")
    return text


def _ratings(column: pa.ChunkedArray, dataset: Dataset, place: str) -> NDArray[np.float32]:
    rating = float_values(column, place)
    if dataset.scale is not None:
        low, high = dataset.scale
        outside = (rating < low) | (rating > high)
        refuse_rows(column, outside, place, f"ratings are from {low:g} to {high:g} here")
    return rating
