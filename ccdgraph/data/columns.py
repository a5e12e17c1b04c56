"""Arrow columns as ids, times and ratings."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccdgraph.data.tables import refuse_rows

if TYPE_CHECKING:
    import pyarrow as pa

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# a time of at least this is in ms, us, ns: seconds reach the first in the year 5138
_UNIT_FROM = np.array([1e11, 1e14, 1e17])
_EXACT = 2.0**53  # above it not every whole number is a float64

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_CLOCK = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
_ISO = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}({_CLOCK}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)?)?$"
_ZONED = r":[0-9.]+(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


def external_ids(column: pa.ChunkedArray, place: str) -> NDArray[Any]:
    """External ids ``[E]``: int64 if every one is a whole number in plain form, else strings.

    ``"007"`` stays text, so leading zeros survive.

    Raises:
        ValueError: an id is missing, a fraction, negative, or a float too large to be exact; the
            message names the row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kind

    column = _plain(column)
    _refuse_missing(column, place, "drop the row or fill in the id")
    if kind.is_floating(column.type):
        fraction = pc.not_equal(column, pc.floor(column))
        refuse_rows(column, fraction, place, "ids are whole numbers or text")
        hint = "a float holds no whole number of this size exactly; read the ids as text"
        refuse_rows(column, pc.greater_equal(pc.abs(column), _EXACT), place, hint)
        column = pc.cast(column, pa.int64(), safe=False)
    if not kind.is_signed_integer(column.type):
        column = column.cast(pa.string())
        if not pc.all(pc.match_substring_regex(column, _WHOLE)).as_py():
            return np.asarray(column.to_numpy(), dtype=object)
    ids = np.asarray(column.cast(pa.int64()).to_numpy())
    refuse_rows(column, ids < 0, place, "a number that is an id is not negative; drop the row")
    return ids


def utc_seconds(
    column: pa.ChunkedArray, place: str, unit: str | None = None
) -> tuple[NDArray[Any], NDArray[np.int64], str]:
    """Times to sort by and in whole UTC seconds, ``[E]`` each, and the unit they came in.

    Numbers are epoch times; their unit is read off their magnitude unless given. Text is a number
    or an ISO date; dates without a zone are UTC.

    Raises:
        ValueError: a time is missing, not a time, or in another unit than the first row's; the
            message names the row.
    """
    import pyarrow.types as kind

    column = _plain(column)
    _refuse_missing(column, place, "drop the row or fill in the time")
    if kind.is_string(column.type):
        column = _parse_times(column, place)
    if kind.is_date(column.type) or kind.is_timestamp(column.type):
        raw, ticks = _date_ticks(column)
        return raw, raw // ticks, "date"
    if not (kind.is_integer(column.type) or kind.is_floating(column.type)):
        raise ValueError(f"{place} has type {column.type}; times are numbers, text or dates")
    raw = column.to_numpy()
    # Extremes first: a mask for the message takes as much memory as the column.
    if not -9e18 < raw.min() <= raw.max() < 9e18:
        refuse_rows(column, ~(np.abs(raw) < 9e18), place, "it is out of range for a time")
    if unit is None:
        size = raw if raw.min() >= 0 else np.abs(raw)
        first, low, high = np.searchsorted(
            _UNIT_FROM, [size[0], size.min(), size.max()], side="right"
        )
        unit = list(PER_SECOND)[first]
        if low != high:
            other = np.searchsorted(_UNIT_FROM, size, side="right") != first
            hint = f"the first row is in {unit!r} by its size, this one is not; set 'time_unit'"
            refuse_rows(column, other, place, hint)
    seconds = np.floor_divide(raw, PER_SECOND[unit])
    return raw, seconds.astype(np.int64, copy=False), unit


def float_values(column: pa.ChunkedArray, place: str) -> NDArray[np.float32]:
    """Finite float32 values ``[E]``.

    Raises:
        ValueError: a value is missing or not a number; the message names the row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kind

    column = _plain(column)
    _refuse_missing(column, place, "drop the row or fill in the value")
    if kind.is_string(column.type):
        text = pc.invert(pc.match_substring_regex(column, _NUMBER))
        refuse_rows(column, text, place, "it must be a number")
    values = column.cast(pa.float32(), safe=False).to_numpy()
    refuse_rows(column, ~np.isfinite(values), place, "it must be finite")
    return np.array(values, dtype=np.float32)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries decoded and every kind of text as ``string``."""
    import pyarrow as pa
    import pyarrow.types as kind

    if kind.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind.is_large_string(column.type) or kind.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _refuse_missing(column: pa.ChunkedArray, place: str, hint: str) -> None:
    import pyarrow.compute as pc

    refuse_rows(column, pc.is_null(column, nan_is_null=True), place, hint)


def _parse_times(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    """Text as int64 or float64 numbers, or as timestamps."""
    import pyarrow as pa
    import pyarrow.compute as pc

    number = pc.match_substring_regex(column, _NUMBER)
    date = pc.match_substring_regex(column, _ISO)
    hint = "it is neither a number nor an ISO date such as 2024-05-01T12:00:00Z"
    refuse_rows(column, pc.invert(pc.or_(number, date)), place, hint)
    hint = "the first row holds a number, this one a date or the reverse; use one form"
    refuse_rows(column, pc.not_equal(number, number[0]), place, hint)
    if number[0].as_py():
        whole = pc.all(pc.match_substring_regex(column, _WHOLE)).as_py()
        return column.cast(pa.int64() if whole else pa.float64())
    short = pc.equal(pc.utf8_length(column), 10)
    text = pc.if_else(short, pc.binary_join_element_wise(column, "T00:00", ""), column)
    zoned = pc.match_substring_regex(text, _ZONED)
    text = pc.if_else(zoned, text, pc.binary_join_element_wise(text, "Z", ""))
    text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")
    try:
        return text.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        refuse_rows(column, [not _on_calendar(value) for value in text.to_pylist()], place, hint)
        raise


def _on_calendar(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _date_ticks(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], int]:
    """Integers that order as the dates do, and how many make a second."""
    import pyarrow as pa
    import pyarrow.types as kind

    if kind.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    return np.asarray(column.cast(pa.int64()).to_numpy()), PER_SECOND[column.type.unit]
