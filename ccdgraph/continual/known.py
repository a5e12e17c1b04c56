"""What a continual learner knows at a block: the interactions so far and the graph they form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import UserItems
from ccdgraph.data.stream import Block


@dataclass(frozen=True)
class Known:
    """Everything that has arrived.

    Args:
        history: every training interaction so far.
        graph: the edges that models propagate over: all of them, or the last block's.
        before: ``graph`` as it was before the last block; ``None`` after the base block.
    """

    history: BipartiteGraph
    graph: BipartiteGraph
    before: BipartiteGraph | None = None

    @property
    def seen(self) -> UserItems:
        """Training items of every user."""
        return self.history.user_items


def arrive(
    known: Known | None, block: Block, *, cumulative: bool, decay: float = 1.0, part: int = 0
) -> Known:
    """What is known once ``block`` has arrived.

    Args:
        known: what was known before; ``None`` for the base block.
        block: its training interactions become edges.
        cumulative: keep the older edges in ``graph`` (it evolves), or take the block's alone.
        decay: weight of the edges of earlier blocks, all alike, where the block's own have 1. It
            does not compound: however long ago, an older edge weighs the same.
        part: place of this piece within its block (:func:`parts`).
    """
    train, sizes = block.train, (block.num_users, block.num_items)
    if known is None:
        graph = BipartiteGraph.from_interactions(train, *sizes)
        return Known(graph, graph)
    history = known.history.grow(train, *sizes)
    if cumulative and decay == 1:
        graph = history
    elif part > 0:
        graph = known.graph.grow(train, *sizes)
    elif cumulative:
        graph = known.history.grow(train, *sizes, decay=decay)
    else:
        graph = BipartiteGraph.from_interactions(train, *sizes)
    return Known(history, graph, known.before if part else known.graph)


def parts(block: Block, num: int, known: Known) -> Iterator[Block]:
    """``block`` in ``num`` consecutive pieces of its training rows, as they would have arrived.

    A piece counts the entities known by then; the last counts all of the block.
    """
    users, items = known.history.num_users, known.history.num_items
    rows = torch.arange(len(block.train), device=block.train.user.device)
    pieces = [piece for piece in rows.tensor_split(num) if len(piece)]
    for place, piece in enumerate(pieces):
        train = block.train[piece]
        users, items = max(users, int(train.user.max()) + 1), max(items, int(train.item.max()) + 1)
        if place == len(pieces) - 1:
            users, items = block.num_users, block.num_items
        yield replace(block, train=train, num_users=users, num_items=items)
