"""Files and frames as Arrow tables, with errors that name the file and the row."""

from __future__ import annotations

import difflib
import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Choose = Callable[[Sequence[str]], dict[str, str]]

NULLS = ["", "NaN", "nan", "NULL", "null", "None"]
_DELIMITERS = "\t,;|"
_CUT = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.ReadError)


class RowError(ValueError):
    """A row that cannot be used.

    Args:
        place: column and file.
        row: position of the row from 0.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, place: str, row: int, reason: str) -> None:
        super().__init__(f"{place}, row {row + 1}: {reason}")
        self.place, self.row, self.reason = place, row, reason

    def after(self, rows: int) -> RowError:
        """The same of a file in which ``rows`` stand before the rows that were looked at."""
        return RowError(self.place, self.row + rows, self.reason)


def read_table(
    source: str | Path | Any, choose: Choose, *, header: Sequence[str] | None = None
) -> pa.Table:
    """Chosen columns of a text file, a Parquet file or folder, or a frame, under new names.

    Args:
        source: a path (``.parquet``, ``.pq`` or a folder of such; text otherwise) or a frame with
            the Arrow interface: pandas, polars, Arrow, or a dict of columns.
        choose: maps the names of the columns that are there to ``{new name: name there}``.
        header: names of all columns of a text file without a header line.

    Raises:
        ValueError: the source is empty, damaged or cut short.
        TypeError: the source is neither a path nor a frame.
    """
    if not isinstance(source, str | Path):
        table = _frame_table(source, choose)
    elif Path(source).suffix in (".parquet", ".pq") or Path(source).is_dir():
        table = _parquet_table(Path(source), choose)
    else:
        table = _text_table(Path(source), choose, header)
    if table.num_rows == 0:
        raise ValueError(f"{where(source)} has no rows; it needs at least one")
    return table


def where(source: str | Path | Any) -> str:
    """How messages call a source: its file name, or its type."""
    if isinstance(source, str | Path):
        return f"'{Path(source)}'"
    return f"the {type(source).__name__}"


def require_column(name: str, present: Sequence[str], place: str) -> None:
    """Refuse a column that is not there.

    Raises:
        ValueError: names the columns that are there, and the closest one.
    """
    if name in present:
        return
    close = difflib.get_close_matches(name, present, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "; name one of these"
    raise ValueError(f"{place} has no column {name!r}, only {', '.join(present)}{hint}")


def refuse_rows(column: pa.ChunkedArray, bad: Any, place: str, hint: str) -> None:
    """Refuse the first row where ``bad`` holds; rows count from 1, below any header.

    Raises:
        RowError: names the row, the column and the value.
    """
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        value = column[int(rows[0])].as_py()
        shown = "missing" if value is None or value != value else repr(value)
        raise RowError(place, int(rows[0]), f"the value is {shown}; {hint}")


def _frame_table(source: Any, choose: Choose) -> pa.Table:
    import pyarrow as pa

    try:
        table = pa.table(source)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = "; ".join(str(part) for part in error.args)
        raise ValueError(f"{where(source)} has a column of mixed types: {reason}") from error
    except OverflowError as error:
        raise ValueError(
            f"{where(source)} has a number that overflows 64 bits; pass such ids as text"
        ) from error
    except TypeError as error:
        raise TypeError(
            f"cannot read interactions from {where(source)}; pass a path or a frame"
        ) from error
    columns = choose(table.column_names)
    return table.select(list(columns.values())).rename_columns(list(columns))


def _parquet_table(path: Path, choose: Choose) -> pa.Table:
    import pyarrow as pa
    from pyarrow import dataset

    try:
        data = dataset.dataset(path, format="parquet")
        columns = choose(data.schema.names)
        table = data.to_table(columns=list(columns.values()))
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"'{path}' is not readable as Parquet, it may be cut short; copy it again"
        ) from error
    return table.rename_columns(list(columns))


def _text_table(path: Path, choose: Choose, header: Sequence[str] | None) -> pa.Table:
    with naming_damage(path):
        with _open(path) as file:
            first = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
        if not first:
            raise ValueError(f"'{path}' is empty; it needs a header and at least one row")
        delimiter = max(_DELIMITERS, key=first.count)
        fields = list(header or [name.strip('"') for name in first.split(delimiter)])
        columns = choose(fields)
        with _open(path) as file:
            table = _parse_text(file, path, delimiter, fields, list(columns.values()), header)
    return table.rename_columns(list(columns))


def _parse_text(
    file: Any,
    path: Path,
    delimiter: str,
    fields: Sequence[str],
    columns: Sequence[str],
    header: Sequence[str] | None,
) -> pa.Table:
    """The named columns as text; empty and NaN as null."""
    import pyarrow as pa
    from pyarrow import csv

    ragged: list[str] = []

    def note(row: csv.InvalidRow) -> str:
        number = row.number - (header is None)
        ragged.append(f"'{path}', row {number}: {row.actual_columns} fields, not {len(fields)}")
        return "error"

    try:
        return csv.read_csv(
            file,
            # only a single thread knows the number of a row
            read_options=csv.ReadOptions(column_names=header, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
            convert_options=csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if ragged:
            raise ValueError(f"{ragged[0]}; repair the row, or copy a file cut short") from error
        reason = str(error).splitlines()[0]
        raise ValueError(f"'{path}' is not readable as text columns: {reason}") from error


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            yield file
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [entry for entry in archive.namelist() if not entry.endswith("/")]
            if len(members) != 1:
                raise ValueError(
                    f"'{path}' holds {len(members)} files; it must hold one, or be unpacked"
                )
            with archive.open(members[0]) as file:
                yield file
    else:
        with path.open("rb") as file:
            yield file


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Says that the file is damaged where decompressing it fails.

    Raises:
        ValueError: it is damaged or cut short.
    """
    try:
        yield
    except _CUT as error:
        raise ValueError(f"'{path}' is cut short or damaged ({error}); copy it again") from error
