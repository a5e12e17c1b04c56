"""Files and frames as Arrow tables, with errors that name the file and the row."""

from __future__ import annotations

import difflib
import gzip
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_NULLS = ["", "NaN", "nan", "NULL", "null", "None"]
_DELIMITERS = "\t,;|"
_CUT = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)


def read_text_table(
    path: Path, *, columns: Sequence[str] | None = None, header: Sequence[str] | None = None
) -> pa.Table:
    """Columns of a CSV or TSV file (plain, ``.gz`` or ``.zip``) as text; empty and NaN as null.

    The delimiter is the most frequent of tab, comma, semicolon and bar in the first line.

    Args:
        path: the file.
        columns: what to read, by default everything.
        header: names of all columns where the file has no header line.

    Raises:
        ValueError: the file is empty, cut short, lacks a column or has a row of another length.
    """
    import pyarrow as pa
    from pyarrow import csv

    with _naming_damage(path):
        with _open(path) as file:
            first = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
        if not first:
            raise ValueError(f"'{path}' is empty; it needs a header and at least one row")
        delimiter = max(_DELIMITERS, key=first.count)
        fields = list(header or [name.strip('"') for name in first.split(delimiter)])
        chosen = list(columns or fields)
        for name in chosen:
            require_column(name, fields, path.name)
        short: list[str] = []

        def note_row(row: csv.InvalidRow) -> str:
            number = row.number - (header is None)
            short.append(f"row {number} of '{path}' has {row.actual_columns} fields")
            return "error"

        with _open(path) as file:
            try:
                table = csv.read_csv(
                    file,
                    read_options=csv.ReadOptions(column_names=header, use_threads=False),
                    parse_options=csv.ParseOptions(
                        delimiter=delimiter, invalid_row_handler=note_row
                    ),
                    convert_options=csv.ConvertOptions(
                        include_columns=chosen,
                        column_types=dict.fromkeys(chosen, pa.string()),
                        null_values=_NULLS,
                        strings_can_be_null=True,
                    ),
                )
            except pa.ArrowInvalid as error:
                if short:
                    raise ValueError(
                        f"{short[0]}, not {len(fields)}; the file may be cut short"
                    ) from error
                reason = str(error).splitlines()[0]
                raise ValueError(f"'{path}' cannot be read as text columns: {reason}") from error
    if table.num_rows == 0:
        raise ValueError(f"'{path}' has a header but no rows; it needs at least one")
    return table


def require_column(name: str, present: Sequence[str], where: str) -> None:
    """Refuse a column that is not there.

    Raises:
        ValueError: names the columns that are there, and the closest one.
    """
    if name in present:
        return
    close = difflib.get_close_matches(name, present, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{where} has no column {name!r}, only {', '.join(present)}{hint}")


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
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _CUT as error:
        raise ValueError(f"'{path}' is cut short or damaged ({error}); copy it again") from error
