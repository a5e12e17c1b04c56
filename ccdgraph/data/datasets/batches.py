"""Files as batches of the columns that are read, so that no file has to fit into memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from ccdgraph.data.datasets.layouts import Layout
from ccdgraph.data.tables import NULLS, RowError, require_column

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 1 << 24  # bytes parsed at once; the longest line must fit
LINES = 4096


def read_batches(file: IO[bytes], layout: Layout, place: str) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, their columns named by role; text except the numbers of JSON.

    Raises:
        ValueError: a row cannot be parsed; the message names it.
    """
    reader = {"text": _text, "json": _json, "lists": _lists}[layout.kind]
    return reader(file, layout, place)


def _text(file: IO[bytes], layout: Layout, place: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv

    columns = list(layout.columns) or _header(file, layout, place)
    separator, wide = layout.separator[:1], len(layout.separator)
    # Arrow splits at one character, so every second field between "::" is empty
    fields = [name for column in columns for name in (column, *[f"{column}::"] * (wide - 1))]
    fields = fields[: len(fields) - wide + 1]
    ragged: list[RowError] = []

    def note(row: csv.InvalidRow) -> str:
        found = (row.actual_columns + wide - 1) // wide
        reason = f"{found} fields, not {len(columns)}; repair the row, or copy a file cut short"
        ragged.append(RowError(place, row.number - 1, reason))
        return "error"

    quote = '"' if separator == "," else False  # elsewhere a quote is a character like others
    roles = layout.roles
    try:
        reader = csv.open_csv(
            file,
            # only a single thread knows the number of a row
            read_options=csv.ReadOptions(column_names=fields, use_threads=False, block_size=BLOCK),
            parse_options=csv.ParseOptions(
                delimiter=separator, quote_char=quote, invalid_row_handler=note
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(roles.values()),
                column_types=dict.fromkeys(roles.values(), pa.string()),
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
        for batch in reader:
            yield batch.rename_columns(list(roles))
    except pa.ArrowInvalid as error:
        raise ragged[0] if ragged else _unreadable(error, place) from error


def _header(file: IO[bytes], layout: Layout, place: str) -> list[str]:
    """The names in the first line, with the columns that are read under the layout's names."""
    line = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
    names = [name.strip('"').split(":")[0] for name in line.split(layout.separator)]
    for column in layout.roles.values():
        require_column(column, names, place)
    return names


def _unreadable(error: Exception, place: str) -> ValueError:
    reason = str(error).splitlines()[0]
    if reason.startswith("Empty"):
        return ValueError(f"{place} has no rows; it needs at least one")
    row = re.search(r"Row #(\d+): (.*)", reason)
    if row:
        return RowError(place, int(row[1]) - 1, f"{row[2]}; copy the file again")
    return ValueError(f"{place} is not readable as text columns: {reason}")


def _json(file: IO[bytes], layout: Layout, place: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    types = {"user": pa.string(), "item": pa.string(), "rating": pa.float64()}
    types["time"] = pa.int64() if layout.unit in ("s", "ms") else pa.string()
    roles = layout.roles
    try:
        reader = arrow_json.open_json(
            file,
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=pa.schema([(roles[role], types[role]) for role in roles]),
                unexpected_field_behavior="ignore",
            ),
        )
        for batch in reader:
            yield batch.select(list(roles.values())).rename_columns(list(roles))
    except pa.ArrowInvalid as error:
        file.seek(0)
        raise _damaged_line(file, layout, place) or _unreadable(error, place) from error


def _damaged_line(file: IO[bytes], layout: Layout, place: str) -> RowError | None:
    """What is wrong with the first line that is; Arrow does not say which one it is."""
    whole = layout.unit in ("s", "ms")
    kinds: dict[str, tuple[type, ...]] = {"user": (str,), "item": (str,), "rating": (int, float)}
    kinds["time"] = (int,) if whole else (str,)
    for row, line in enumerate(file):
        try:
            record: Any = json.loads(line)
        except ValueError:
            return RowError(place, row, "it is not JSON; repair the row, or copy a file cut short")
        if not isinstance(record, dict):
            return RowError(place, row, "it is not a JSON object; repair the row")
        for role, field in layout.roles.items():
            value = record.get(field)
            if value is not None and type(value) not in kinds[role]:
                wanted = " or ".join(kind.__name__ for kind in kinds[role])
                return RowError(place, row, f"{field!r} is {value!r}, expected {wanted}")
    return None


def _lists(file: IO[bytes], layout: Layout, place: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    user: list[str] = []
    item: list[str] = []
    for row, line in enumerate(file):
        first, *others = line.decode("utf-8", errors="replace").split() or [""]
        wrong = next(
            (one for one in (first, *others) if not one.isascii() or not one.isdigit()), ""
        )
        if wrong or not first:
            raise RowError(
                place, row, f"{wrong!r} is not an id; each line holds a user and its items"
            )
        user += [first] * len(others)
        item += others
        if row % LINES == LINES - 1:
            yield pa.record_batch({"user": user, "item": item})
            user, item = [], []
    yield pa.record_batch(
        {"user": pa.array(user, pa.string()), "item": pa.array(item, pa.string())}
    )
