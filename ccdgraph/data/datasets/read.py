"""Reading a published data set by its name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccdgraph.data import filters
from ccdgraph.data.columns import PER_SECOND, external_ids
from ccdgraph.data.datasets.batches import read_batches
from ccdgraph.data.datasets.catalogue import DATASETS, DatasetName
from ccdgraph.data.datasets.convert import Part, convert
from ccdgraph.data.datasets.download import download as fetched
from ccdgraph.data.datasets.layouts import Dataset
from ccdgraph.data.datasets.sources import open_files
from ccdgraph.data.events import Events
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.tables import naming_damage
from ccdgraph.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa


def read_dataset(
    name: DatasetName,
    path: str | Path,
    *,
    events: Sequence[str] | None = None,
    duplicates: filters.Duplicates = "keep",
    min_rating: float | None = None,
    k_core: int = 0,
    download: bool = False,
) -> Events:
    r"""Read a published data set, sorted by time and numbered by first appearance.

    Only the columns that matter are parsed, a batch at a time. Filters apply in the order events,
    rating, duplicates, k-core; without them every usable row is kept. Times are whole UTC seconds;
    rows of one time keep their order.

    Args:
        name: which data set; its layout, units and traps are in the table of data sets.
        path: the file, plain or ``.gz``, or the folder or the ``.zip`` or ``.tar`` archive with it.
        events: kinds of events that are kept, where the data set has several; by default all.
        duplicates: rows of one (user, item) pair, as in ``read_interactions``.
        min_rating: drop rows rated lower.
        k_core: keep users with ``k`` distinct items and items with ``k`` users, iterated.
        download: fetch the archive to ``path`` where it is not there yet and the data set's terms
            allow it; its checksum is compared.

    Raises:
        ValueError: the name is unknown, or a value cannot be used; the message names the file and
            the row, counted from 1 below any header.
        FileNotFoundError: nothing is at ``path``; the message says where to get the data set.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "u.data").write_text("196\t242\t3\t881250949\n")
    ...     read_dataset("movielens-100k", folder).date_range[0]
    '1997-12-04 15:55:49'
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(str(name), DATASETS, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"it must be one of {', '.join(DATASETS)}"
        )
        raise ValueError(f"'name' is {name!r}; {hint}")
    dataset = DATASETS[name]
    _check_events(events, dataset, name)
    place = fetched(name, dataset, Path(path)) if download else Path(path)
    parts, unit = _read(place, dataset, events)
    if not parts:
        raise ValueError(f"'{path}' has no rows that are kept; none is of the right kind and days")
    found = _join(parts, name, unit)
    if min_rating is not None:
        found = filters.drop_low_ratings(found, min_rating)
    return filters.k_core(filters.deduplicate(found, duplicates), k_core)


def _check_events(events: Sequence[str] | None, dataset: Dataset, name: str) -> None:
    if events is None:
        return
    if not dataset.events:
        raise ValueError(f"'events' is given, but '{name}' has one kind only; leave it out")
    unknown = [event for event in events if event not in dataset.events]
    if unknown or not events:
        found = f"holds {unknown[0]!r}" if unknown else "is empty"
        raise ValueError(f"'events' {found}; name some of {', '.join(dataset.events)}")


def _read(
    path: Path, dataset: Dataset, events: Sequence[str] | None
) -> tuple[list[Part], str | None]:
    """The rows that are kept, a part for each batch, and the unit of their times."""
    parts: list[Part] = []
    unit: str | None = None
    with naming_damage(path):
        for place, layout, file in open_files(path, dataset):
            rows = 0
            for batch in read_batches(file, layout, place):
                if batch.num_rows:
                    part = convert(batch, rows, layout, dataset, place=place, events=events)
                    parts += [part] if len(part.user) else []
                rows += batch.num_rows
            if rows == 0:
                raise ValueError(f"{place} has no rows; it needs at least one")
            if layout.time is not None:
                unit = layout.unit if layout.unit in PER_SECOND else "date"
    return parts, unit


def _join(parts: list[Part], name: str, unit: str | None) -> Events:
    """All rows in time order; empties ``parts``, so that no column is held twice."""
    columns = ((part.user, part.item, part.ticks, part.time, part.rating) for part in parts)
    user_ids, item_ids, ticks, times, ratings = map(list, zip(*columns, strict=True))
    parts.clear()
    order = None if ticks[0] is None else np.argsort(_joined(ticks), kind="stable")
    time, rating = _joined(times, order), _joined(ratings, order)
    user, users = _numbered(user_ids, order, f"user in '{name}'")
    item, items = _numbered(item_ids, order, f"item in '{name}'")
    rows = Interactions(
        torch.from_numpy(user),
        torch.from_numpy(item),
        None if time is None else torch.from_numpy(time),
        None if rating is None else torch.from_numpy(rating),
    )
    return Events(rows, users, items, name, unit)


def _joined(arrays: list[Any], order: NDArray[np.int64] | None = None) -> Any:
    if arrays[0] is None:
        return None
    whole = np.concatenate(arrays)
    arrays.clear()
    return whole if order is None else whole[order]


def _numbered(
    chunks: list[pa.DictionaryArray], order: NDArray[np.int64] | None, place: str
) -> tuple[NDArray[np.int64], Vocabulary]:
    """Ids by first appearance, int64 ``[E]``, and what they stand for."""
    import pandas as pd
    import pyarrow as pa

    column = pa.chunked_array(chunks).unify_dictionaries()
    indices = _joined([chunk.indices.to_numpy() for chunk in column.chunks], order)
    codes, found = pd.factorize(indices)
    known = column.chunk(0).dictionary.take(pa.array(found))
    return codes.astype(np.int64), Vocabulary(external_ids(pa.chunked_array([known]), place))
