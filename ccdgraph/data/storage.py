"""Streams on disk: Parquet columns and one JSON file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ccdgraph.data.describe import fingerprint
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block, Stream
from ccdgraph.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa

_FORMAT = 1
_SPLITS = ("train", "valid", "test")
_COLUMNS = ("user", "item", "time", "rating")


def write_stream(stream: Stream, folder: str | Path) -> Path:
    """Write ``stream.json``, ``users.parquet``, ``items.parquet`` and ``block_k.parquet``.

    Everything is written beside ``folder`` and then renamed to it, so a folder is complete or
    absent.

    Args:
        stream: what to write.
        folder: where; it must not exist or be empty.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds files already.
        OSError: the disk is full or not writable; nothing stays behind.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"'{folder}' exists and is not empty; remove it or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_files(stream, partial)
        partial.chmod(0o755)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_stream(folder: str | Path) -> Stream:
    """Read what ``write_stream`` wrote, bitwise equal.

    Raises:
        ValueError: the folder is not a stream, or a file is missing, damaged or altered; the
            message names it.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / "stream.json").read_text())
        blocks = tuple(
            _read_block(folder / f"block_{index}.parquet", index, *counts)
            for index, counts in enumerate(meta["counts"])
        )
        users, items = (
            Vocabulary(_read_parquet(folder / f"{side}.parquet")["id"].to_numpy())
            for side in ("users", "items")
        )
        stream = Stream(blocks, users, items, meta["protocol"], meta["name"])
        expected = meta["fingerprint"]
    except FileNotFoundError as error:
        raise ValueError(
            f"'{folder}' lacks '{Path(str(error.filename)).name}', so it is not a whole stream; "
            "write it again with write_stream"
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{folder / 'stream.json'}' is not a stream's description; write the stream again"
        ) from error
    counts = [len(users), len(items)]
    if fingerprint(stream) != expected or meta["counts"][-1:] not in ([], [counts]):
        raise ValueError(f"'{folder}' does not match its own fingerprint; write the stream again")
    return stream


def _write_files(stream: Stream, folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for block in stream:
        parquet.write_table(_block_table(block), folder / f"block_{block.index}.parquet")
    for side, vocabulary in (("users", stream.users), ("items", stream.items)):
        table = pa.table({"id": pa.array(vocabulary.ids)})
        parquet.write_table(table, folder / f"{side}.parquet")
    meta = {
        "format": _FORMAT,
        "name": stream.name,
        "protocol": stream.protocol,
        "counts": [[block.num_users, block.num_items] for block in stream],
        "fingerprint": fingerprint(stream),
    }
    (folder / "stream.json").write_text(json.dumps(meta, indent=1) + "\n")


def _block_table(block: Block) -> pa.Table:
    import pyarrow as pa

    parts = [block.train, block.valid, block.test]
    rows = Interactions.cat(parts)
    values = (rows.user, rows.item, rows.time, rows.rating)
    columns: dict[str, Any] = {
        name: value.cpu().numpy()
        for name, value in zip(_COLUMNS, values, strict=True)
        if value is not None
    }
    split = [name for name, part in zip(_SPLITS, parts, strict=True) for _ in range(len(part))]
    return pa.table({**columns, "split": pa.array(split, pa.string()).dictionary_encode()})


def _read_block(path: Path, index: int, num_users: int, num_items: int) -> Block:
    table = _read_parquet(path)
    columns = {
        name: torch.from_numpy(table[name].to_numpy().copy())
        for name in _COLUMNS
        if name in table.column_names
    }
    rows = Interactions(**columns)
    split = table["split"].to_numpy()
    train, valid, test = (rows[torch.from_numpy(split == name)] for name in _SPLITS)
    return Block(index, train, valid, test, num_users, num_items)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    try:
        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' is cut short or damaged; write the stream again") from error
