"""Data whose blocks and splits are given: the published splits of CCD, and one static split."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block, Stream
from ccdgraph.data.tables import read_table, refuse_rows, require_column
from ccdgraph.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa

_SPLITS = ("train", "valid", "test")
_INTEGER = r"^-?[0-9]+$"


def read_presplit(folder: str | Path, *, name: str | None = None) -> Stream:
    """Read ``block_0.csv[.gz]``, ``block_1.csv[.gz]``, ... with columns ``user,item,split``.

    Ids are internal ids already (numbered by first appearance over the blocks) and are kept;
    ``split`` is ``train``, ``valid`` or ``test``. Rows keep their order; there are no times.

    Entity counts of a block are ``num_users_so_far`` and ``num_items_so_far`` of its entry in
    ``meta.json``, which also count entities whose rows were all held out and deleted; without that
    file, the highest id so far plus one. Row counts that ``meta.json`` lists are checked.

    Args:
        folder: where the files lie.
        name: what reports call the stream, by default the folder's name.

    Raises:
        ValueError: no block file, a gap in their numbers, a column missing, a value that is not an
            id or a split, an id that is negative or too large for the rows read so far, a block
            without training rows, a file cut short, or counts that differ from ``meta.json``.
    """
    folder = Path(folder)
    paths = _block_files(folder)
    listed = _listed_counts(folder / "meta.json", len(paths))
    blocks: list[Block] = []
    num_rows, known = 0, (0, 0)
    for index, path in enumerate(paths):
        table = read_table(path, partial(_same_names, path))
        num_rows += table.num_rows
        user = _dense_ids(table, "user", path, num_rows)
        item = _dense_ids(table, "item", path, num_rows)
        split = _split_codes(table, path)
        if not (split == 0).any():
            raise ValueError(f"'{path}' has no training rows; a block needs at least one")
        known = max(known[0], int(user.max()) + 1), max(known[1], int(item.max()) + 1)
        rows = Interactions(torch.from_numpy(user), torch.from_numpy(item))
        train, valid, test = (rows[torch.from_numpy(split == k)] for k in range(3))
        block = _counted(Block(index, train, valid, test, *known), listed[index], path)
        known = block.num_users, block.num_items
        blocks.append(block)
    users, items = (Vocabulary(np.arange(num)) for num in known)
    return Stream(tuple(blocks), users, items, "within", name or folder.resolve().name)


def read_split(folder: str | Path, *, name: str | None = None) -> Stream:
    """Read ``train.csv[.gz]``, ``valid.csv[.gz]`` and ``test.csv[.gz]`` as a stream of one block.

    Each has columns ``user,item`` of internal ids; entities count up to the highest id of any file.

    Args:
        folder: where the files lie.
        name: what reports call the data, by default the folder's name.

    Raises:
        ValueError: a file or column is missing, or a value is not an id.
    """
    folder = Path(folder)
    num_rows, sizes = 0, (0, 0)
    parts: list[Interactions] = []
    for split in _SPLITS:
        found = [folder / f"{split}.csv{end}" for end in ("", ".gz")]
        path = next((path for path in found if path.exists()), None)
        if path is None:
            raise ValueError(f"'{folder}' has no {split}.csv or {split}.csv.gz")
        table = read_table(path, partial(_same_names, path, names=("user", "item")))
        num_rows += table.num_rows
        user, item = (_dense_ids(table, field, path, num_rows) for field in ("user", "item"))
        if len(user):
            sizes = max(sizes[0], int(user.max()) + 1), max(sizes[1], int(item.max()) + 1)
        parts.append(Interactions(torch.from_numpy(user), torch.from_numpy(item)))
    if len(parts[0]) == 0:
        raise ValueError(f"'{folder}' has no training rows; a model needs at least one")
    users, items = (Vocabulary(np.arange(num)) for num in sizes)
    train, valid, test = parts
    block = Block(0, train, valid, test, *sizes)
    return Stream((block,), users, items, "within", name or folder.resolve().name)


def _block_files(folder: Path) -> list[Path]:
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"block_(\d+)\.csv(\.gz)?", path.name)
        if match and int(match[1]) in found:
            raise ValueError(f"block {match[1]} is there twice in '{folder}'; remove one file")
        if match:
            found[int(match[1])] = path
    missing = sorted(set(range(max(found, default=0) + 1)) - set(found))
    if missing:
        raise ValueError(
            f"'{folder}' has no block_{missing[0]}.csv or .csv.gz; blocks are numbered from 0"
        )
    return [found[index] for index in range(len(found))]


def _same_names(
    path: Path, fields: Sequence[str], names: Sequence[str] = ("user", "item", "split")
) -> dict[str, str]:
    for name in names:
        require_column(name, fields, f"'{path}'")
    return {name: name for name in names}


def _dense_ids(table: pa.Table, field: str, path: Path, num_rows: int) -> np.ndarray[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column, place = table[field], f"{field} in '{path}'"
    whole = pc.fill_null(pc.match_substring_regex(column, _INTEGER), False)
    refuse_rows(column, pc.invert(whole), place, "ids are whole numbers")
    try:
        ids = column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        long = pc.greater(pc.utf8_length(column), 18)
        refuse_rows(column, long, place, "the id overflows 64 bits")
        raise
    # an id counts entities, and each came with at least one row; split files may lack a few
    limit = 1000 + 10 * num_rows
    bad = (ids < 0) | (ids >= limit)
    hint = f"ids number {field}s by first appearance, here 0 to {limit - 1} at most"
    refuse_rows(column, bad, place, hint)
    return np.array(ids)


def _split_codes(table: pa.Table, path: Path) -> np.ndarray[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    codes = pc.fill_null(pc.index_in(table["split"], pa.array(_SPLITS)), -1).to_numpy()
    hint = "it must be train, valid or test"
    refuse_rows(table["split"], codes < 0, f"split in '{path}'", hint)
    return np.asarray(codes)


def _listed_counts(path: Path, num_blocks: int) -> list[dict[str, int]]:
    if not path.exists():
        return [{}] * num_blocks
    try:
        listed: list[dict[str, int]] = json.loads(path.read_text())["blocks"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' has no readable 'blocks'; repair or remove it") from error
    if len(listed) != num_blocks:
        raise ValueError(
            f"'{path}' lists {len(listed)} blocks, the folder holds {num_blocks}; copy it again"
        )
    return listed


def _counted(block: Block, listed: dict[str, int], path: Path) -> Block:
    """``block`` with the entity counts that ``meta.json`` lists, after checking them."""
    rows = {"train": len(block.train), "valid": len(block.valid), "test": len(block.test)}
    for split, num in rows.items():
        if listed.get(split, num) != num:
            raise ValueError(
                f"'{path}' has {num} {split} rows, meta.json says {listed[split]}; "
                "the file is damaged, copy it again"
            )
    num_users = listed.get("num_users_so_far", block.num_users)
    num_items = listed.get("num_items_so_far", block.num_items)
    if num_users < block.num_users or num_items < block.num_items:
        raise ValueError(
            f"'{path}' needs {block.num_users} users and {block.num_items} items, meta.json says "
            f"{num_users} and {num_items}; repair or remove meta.json"
        )
    return replace(block, num_users=num_users, num_items=num_items)
