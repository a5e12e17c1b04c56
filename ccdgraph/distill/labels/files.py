"""The file of one teacher version and block.

It is one Arrow IPC record batch with a row for every user the teacher knew: a list of items,
best first, and a list of scores of the same lengths. The offsets of the lists are the CSR pointer
and the places in them the ranks, so neither users nor ranks take space; items are stored in the
smallest unsigned type that holds the catalogue. A ``rank`` column exists only where ranks are not
the places, as for labels that are sampled.

Arrow IPC without compression was chosen by measurement (``benchmarks/labels.py``; ``formats`` in
``benchmarks/results/labels.json``): a file is hardly larger than Parquet's, is written and read
several times as fast, and is read in place, from a memory map that all readers share, while Parquet
decodes a copy for every reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccdgraph.distill.labels.soft import Column, SoftLabels, StoredLabels

if TYPE_CHECKING:
    import pyarrow as pa


def encode(
    labels: SoftLabels, *, num_users: int, num_items: int, half: bool = False
) -> tuple[pa.Buffer, int]:
    """The bytes of a file of ``labels``, and the number of users that have any.

    Args:
        labels: in any order of rows; stored by user, then by rank.
        num_users: users the teacher knew.
        num_items: items the teacher knew.
        half: store scores as float16; by default they come back to the last bit.

    Raises:
        ValueError: an id out of range, a pair or a rank twice, or a score that is not finite.
    """
    import pyarrow as pa

    user, item, rank, score = _ordered(labels, num_users, num_items)
    indptr = np.zeros(num_users + 1, dtype=np.int32)
    count = np.bincount(user, minlength=num_users)
    count.cumsum(out=indptr[1:])
    if half:
        if np.abs(score).max(initial=0) > np.finfo(np.float16).max:
            raise ValueError("'score' holds values above 65504, the largest float16; use float32")
        score = score.astype(np.float16)
    columns = {"item": item.astype(np.min_scalar_type(max(num_items - 1, 0))), "score": score}
    if (rank != np.arange(len(user)) - np.repeat(indptr[:-1], count)).any():
        columns["rank"] = rank.astype(np.min_scalar_type(int(rank.max())))
    lists = {name: pa.ListArray.from_arrays(indptr, values) for name, values in columns.items()}
    about = {"version": labels.version, "block": str(labels.block), "num_items": str(num_items)}
    batch = pa.record_batch(lists, metadata=about)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    return sink.getvalue(), int((count > 0).sum())


def decode(data: pa.Buffer) -> StoredLabels:
    """The labels in ``data``, without a copy."""
    import pyarrow as pa

    batch = pa.ipc.open_file(data).get_batch(0)
    about = {name.decode(): value.decode() for name, value in batch.schema.metadata.items()}
    values = {name: batch.column(name).values.to_numpy() for name in batch.schema.names}
    indptr = batch.column("item").offsets.to_numpy()
    block, num_items = int(about["block"]), int(about["num_items"])
    return StoredLabels(about["version"], block, num_items, indptr, **values)


def _ordered(
    labels: SoftLabels, num_users: int, num_items: int
) -> tuple[Column, Column, Column, Column]:
    """The columns by user, then by rank, once they are found to be sound."""
    columns = (labels.user, labels.item, labels.rank, labels.score.detach())
    user, item, rank, score = (column.cpu().numpy() for column in columns)
    if not len(user) == len(item) == len(rank) == len(score):
        sizes = [len(user), len(item), len(rank), len(score)]
        raise ValueError(f"'labels' has columns of {sizes} rows, expected as many in each")
    if len(user) >= 2**31:
        raise ValueError(f"'labels' has {len(user)} rows, a file holds 2147483647; write by block")
    largest = {"user": num_users, "item": num_items, "rank": 2**31}
    for (name, size), ids in zip(largest.items(), (user, item, rank), strict=True):
        if len(ids) and not 0 <= ids.min() <= ids.max() < size:
            raise ValueError(f"'{name}' holds {ids.min()} to {ids.max()}, expected 0 to {size - 1}")
    if not np.isfinite(score).all():
        raise ValueError("'score' holds NaN or infinity; the teacher has diverged, train it again")
    place = user * (int(rank.max(initial=0)) + 1) + rank
    if (np.diff(place) <= 0).any():
        order = place.argsort()
        user, item, rank, score, place = (x[order] for x in (user, item, rank, score, place))
    for name, keys in (("rank", place), ("item", np.sort(user * num_items + item))):
        if (np.diff(keys) == 0).any():
            raise ValueError(f"a user has the same '{name}' twice; label a pair once a version")
    return user, item, rank, score.astype(np.float32, copy=False)
