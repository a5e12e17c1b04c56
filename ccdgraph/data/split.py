"""Cutting events into a stream of blocks, and appending the blocks that arrive later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.data.events import Events, iso
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.readers import read_interactions
from ccdgraph.data.stream import Block, Stream

Ratios = tuple[float, float, float]


def split_stream(
    events: Events,
    *,
    base: float = 0.5,
    num_blocks: int = 5,
    by: Literal["count", "time"] = "count",
    protocol: Literal["within", "next"] = "within",
    ratios: Ratios = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Stream:
    """Cut events into a base block and ``num_blocks`` incremental blocks, in time order.

    Rows with the time of a block's last row belong to that block, so no time is cut in two. Block
    ``k`` depends on the rows of blocks ``0..k`` only (under ``"next"`` its held-out parts on
    ``k + 1`` as well).

    Protocol ``"within"`` (Lee et al., *Continual Collaborative Distillation for Recommender
    System*, KDD 2024): inside a block each user's ``n`` distinct items are split at random;
    with ``n >= 3``, ``max(floor(n * ratio), 1)`` each go to valid and test (none where the ratio is
    0), the rest and everything of smaller users to train. All rows of a (user, item) pair go
    together. Held-out rows whose item has no training row in any block so far cannot be scored
    and are dropped.

    Protocol ``"next"``: a block trains on all of its rows; the first and second half in time of the
    next block are its valid and test, restricted to users and items known by then. The last block
    has neither until the next arrives.

    Args:
        events: rows to cut, from ``read_interactions``.
        base: share of the rows (``by="count"``) or of the time span (``by="time"``) of block 0;
            1 with ``num_blocks=0`` gives one block.
        num_blocks: number of equal blocks after the base.
        by: whether blocks are equal in rows or in time.
        protocol: where held-out interactions come from.
        ratios: train, valid and test shares of ``"within"``; they sum to 1.
        seed: seed of ``"within"``; each block draws from its own generator.

    Raises:
        ValueError: an option is out of range, a block is empty, or ``by="time"`` has no times.

    >>> from ccdgraph.data import Vocabulary
    >>> rows = Interactions(torch.arange(6) // 2, torch.arange(6) % 2, torch.arange(6))
    >>> events = Events.from_rows(rows, Vocabulary(range(3)), Vocabulary(range(2)))
    >>> stream = split_stream(events, base=1 / 3, num_blocks=2, protocol="next")
    >>> [(len(block.train), block.num_users) for block in stream]
    [(2, 1), (2, 2), (2, 3)]
    """
    _check_options(base, num_blocks, by, protocol)
    _check_ratios(ratios)
    shares = [base + (1 - base) * k / num_blocks for k in range(num_blocks)] if num_blocks else []
    rows = events.interactions
    ends = _count_ends(rows, shares) if by == "count" else _time_ends(rows, shares)
    starts = [0, *ends]
    blocks: tuple[Block, ...] = ()
    for index, (start, end) in enumerate(zip(starts, [*ends, len(rows)], strict=True)):
        if start == end:
            raise ValueError(
                f"block {index} of '{events.name}' would be empty ({len(rows)} rows in "
                f"{num_blocks + 1} blocks); use fewer 'num_blocks' or another 'base'"
            )
        blocks = _arrive(blocks, rows[start:end], protocol=protocol, ratios=ratios, seed=seed)
    return Stream(blocks, events.users, events.items, protocol, events.name)


def next_protocol(stream: Stream, *, seed: int = 0) -> Stream:
    """The blocks of a ``"within"`` stream under protocol ``"next"``, each learnt whole.

    As in :func:`split_stream`, valid and test of a block are the halves of the next one that its
    users and items cover; without times the halves are drawn at random.

    Args:
        stream: blocks with held-out parts of their own.
        seed: of the halves where there are no times; each block draws from its own generator.

    Raises:
        ValueError: the stream has protocol ``"next"`` already.
    """
    if stream.protocol == "next":
        raise ValueError(f"'{stream.name}' has protocol 'next' already; take it as it is")
    blocks: tuple[Block, ...] = ()
    for block in stream:
        rows = Interactions.cat([block.train, block.valid, block.test])
        drawn = torch.randperm(len(rows), generator=rng(seed, "halves", block.index))
        rows = rows[drawn if rows.time is None else rows.time.argsort(stable=True)]
        if blocks:
            blocks = (*blocks[:-1], _hold_out(blocks[-1], rows))
        blocks = (*blocks, replace(block, train=rows, valid=rows[:0], test=rows[:0]))
    return replace(stream, blocks=blocks, protocol="next")


def append_block(
    stream: Stream, source: Events | Any, *, ratios: Ratios = (0.8, 0.1, 0.1), seed: int = 0
) -> Stream:
    """A stream with one more block: vocabularies grow, old ids and earlier blocks stay.

    Under ``"next"`` the block that was last receives its valid and test rows. With the rows,
    ratios and seed of ``split_stream`` the result equals splitting everything at once.

    Args:
        stream: where the block arrives, of any origin.
        source: ``Events``, or anything ``read_interactions`` reads by itself.
        ratios: as in ``split_stream``.
        seed: as in ``split_stream``.

    Raises:
        ValueError: the block is empty or starts before the last block ends.
    """
    _check_ratios(ratios)
    events = source if isinstance(source, Events) else read_interactions(source)
    if len(events) == 0:
        raise ValueError(f"'{events.name}' has no rows; a block needs at least one")
    _check_order(stream, events)
    users = stream.users.extend(events.users.ids)
    items = stream.items.extend(events.items.ids)
    rows = events.interactions
    rows = Interactions(
        torch.from_numpy(users.codes(events.users.ids))[rows.user],
        torch.from_numpy(items.codes(events.items.ids))[rows.item],
        rows.time,
        rows.rating,
    )
    blocks = _arrive(stream.blocks, rows, protocol=stream.protocol, ratios=ratios, seed=seed)
    return Stream(blocks, users, items, stream.protocol, stream.name)


def _arrive(
    blocks: tuple[Block, ...], rows: Interactions, *, protocol: str, ratios: Ratios, seed: int
) -> tuple[Block, ...]:
    num_users, num_items = int(rows.user.max()) + 1, int(rows.item.max()) + 1
    if blocks:
        num_users = max(num_users, blocks[-1].num_users)
        num_items = max(num_items, blocks[-1].num_items)
    index = len(blocks)
    nothing = rows[torch.empty(0, dtype=torch.int64)]
    if protocol == "next":
        if blocks:
            blocks = (*blocks[:-1], _hold_out(blocks[-1], rows))
        return (*blocks, Block(index, rows, nothing, nothing, num_users, num_items))
    part = _parts(rows, ratios, rng(seed, "split", index))
    train = rows[part == 0]
    trained = torch.zeros(num_items, dtype=torch.bool)
    for earlier in blocks:
        trained[earlier.train.item] = True
    trained[train.item] = True
    valid, test = (rows[(part == k) & trained[rows.item]] for k in (1, 2))
    return (*blocks, Block(index, train, valid, test, num_users, num_items))


def _parts(rows: Interactions, ratios: Ratios, generator: torch.Generator) -> Tensor:
    """0, 1 or 2 (train, valid, test) for every row, ``[E]``."""
    num_items = int(rows.item.max()) + 1
    pairs, inverse = torch.unique(rows.user * num_items + rows.item, return_inverse=True)
    owner = pairs // num_items
    del pairs
    shuffled = torch.randperm(len(owner), generator=generator)
    order = shuffled[owner[shuffled].argsort(stable=True)]
    num = torch.bincount(owner)
    user = owner[order]
    del owner, shuffled
    rank = torch.arange(len(order)) - (num.cumsum(0) - num)[user]
    valid, test = (_held_out(num, ratio)[user] for ratio in ratios[1:])
    part = torch.empty_like(order)
    part[order] = (rank < valid + test).long() + (rank < test).long()
    return part[inverse]


def _held_out(num: Tensor, ratio: float) -> Tensor:
    if ratio == 0:
        return torch.zeros_like(num)
    # 0.29 * 100 is 28.999999999999996 in binary
    count = (num.double() * ratio + 1e-9).floor().long().clamp(min=1)
    return torch.where(num >= 3, count, 0)


def _hold_out(block: Block, rows: Interactions) -> Block:
    """``block`` with its valid and test from the ``rows`` of the next block."""
    half = _after_ties(rows, len(rows) // 2)
    half = half if half < len(rows) else len(rows) // 2
    known = (rows.user < block.num_users) & (rows.item < block.num_items)
    first = torch.arange(len(rows)) < half
    return replace(block, valid=rows[known & first], test=rows[known & ~first])


def _count_ends(rows: Interactions, shares: list[float]) -> list[int]:
    return [_after_ties(rows, round(share * len(rows))) for share in shares]


def _after_ties(rows: Interactions, end: int) -> int:
    """The first place from ``end`` on where time changes."""
    if rows.time is None or end == 0:
        return end
    return int(torch.searchsorted(rows.time, rows.time[end - 1], right=True))


def _time_ends(rows: Interactions, shares: list[float]) -> list[int]:
    if rows.time is None:
        raise ValueError("'by' is 'time', but the events have no times; use by='count'")
    start, stop = int(rows.time[0]), int(rows.time[-1])
    cuts = torch.tensor([start + round((stop - start) * share) for share in shares])
    return torch.searchsorted(rows.time, cuts.long(), right=True).tolist()


def _check_options(base: float, num_blocks: int, by: str, protocol: str) -> None:
    if num_blocks < 0 or not 0 < base <= 1 or (base == 1) != (num_blocks == 0):
        raise ValueError(
            f"'base' is {base} and 'num_blocks' {num_blocks}; "
            "base must lie between 0 and 1, and is 1 exactly when there are no further blocks"
        )
    if by not in ("count", "time"):
        raise ValueError(f"'by' is {by!r}; it must be 'count' or 'time'")
    if protocol not in ("within", "next"):
        raise ValueError(f"'protocol' is {protocol!r}; it must be 'within' or 'next'")


def _check_ratios(ratios: Ratios) -> None:
    if len(ratios) != 3 or ratios[0] <= 0 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(
            f"'ratios' is {ratios}; it must be three shares (train, valid, test) that sum to 1, "
            "train above 0"
        )


def _check_order(stream: Stream, events: Events) -> None:
    block = stream.blocks[-1]
    last = Interactions.cat([block.train, block.valid, block.test]).time
    new = events.interactions.time
    if last is not None and new is not None and len(last) and int(new[0]) < int(last.max()):
        raise ValueError(
            f"'{events.name}' starts at {iso(int(new[0]))}, before the last block ends at "
            f"{iso(int(last.max()))}; drop the late rows or split the stream again"
        )
