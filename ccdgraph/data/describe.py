"""What a stream holds: counts per block, and a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from ccdgraph.data.events import date_range
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block, Stream


@dataclass(frozen=True)
class BlockSummary:
    """Counts of one block.

    Args:
        index: position in the stream.
        train: training rows.
        valid: validation rows.
        test: test rows.
        users: users with a row of this block's own time (under ``"next"``, train only).
        new_users: users known after this block and not before.
        num_users: users known after this block.
        items: items with a row of this block's own time.
        new_items: items known after this block and not before.
        num_items: items known after this block.
        start: UTC date and time of the first of these rows, or ``None`` without times.
        end: UTC date and time of the last.
    """

    index: int
    train: int
    valid: int
    test: int
    users: int
    new_users: int
    num_users: int
    items: int
    new_items: int
    num_items: int
    start: str | None
    end: str | None


def describe(stream: Stream) -> list[BlockSummary]:
    """The counts and dates of every block.

    >>> from ccdgraph.data import synthetic_stream
    >>> base, first = describe(synthetic_stream(100, 50, 1000, num_blocks=1))
    >>> first.num_users - first.new_users == base.num_users
    True
    """
    summaries: list[BlockSummary] = []
    num_users = num_items = 0
    for block in stream:
        own = [block.train] if stream.protocol == "next" else _parts(block)
        rows = Interactions.cat(own)
        start, end = date_range(rows) or (None, None)
        summaries.append(
            BlockSummary(
                index=block.index,
                train=len(block.train),
                valid=len(block.valid),
                test=len(block.test),
                users=len(rows.user.unique()),
                new_users=block.num_users - num_users,
                num_users=block.num_users,
                items=len(rows.item.unique()),
                new_items=block.num_items - num_items,
                num_items=block.num_items,
                start=start,
                end=end,
            )
        )
        num_users, num_items = block.num_users, block.num_items
    return summaries


def fingerprint(stream: Stream) -> str:
    """SHA-256 of the protocol and of every block's counts, users and items, as hex.

    Equal on every machine; times, ratings, names and external ids do not enter.
    """
    digest = hashlib.sha256(stream.protocol.encode())
    for block in stream:
        parts = _parts(block)
        sizes = [block.num_users, block.num_items, *(len(part) for part in parts)]
        digest.update(",".join(map(str, sizes)).encode())
        for part in parts:
            digest.update(_bytes(part.user))
            digest.update(_bytes(part.item))
    return digest.hexdigest()


def _parts(block: Block) -> list[Interactions]:
    return [block.train, block.valid, block.test]


def _bytes(ids: Tensor) -> bytes:
    return ids.cpu().numpy().astype("<i8").tobytes()
