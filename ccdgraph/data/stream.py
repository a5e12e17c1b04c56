"""Blocks and streams: interactions cut in time, each block split into train, valid and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ccdgraph.data.interactions import Interactions
from ccdgraph.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Block:
    """One slice of the stream, and how many entities are known once it has arrived.

    Args:
        index: position in the stream, 0 for the base block.
        train: interactions to learn from.
        valid: held-out interactions for model selection.
        test: held-out interactions that are only ever measured.
        num_users: users known so far; a user of this block with ``id >= num_users`` of the block
            before is new.
        num_items: items known so far.
    """

    index: int
    train: Interactions
    valid: Interactions
    test: Interactions
    num_users: int
    num_items: int

    def to(self, device: torch.device | str) -> Block:
        """The same block on ``device``."""
        train, valid, test = (part.to(device) for part in (self.train, self.valid, self.test))
        return Block(self.index, train, valid, test, self.num_users, self.num_items)


@dataclass(frozen=True)
class Stream:
    """Blocks in time order, the vocabularies of their ids, and the protocol they are split by.

    Args:
        blocks: consecutive blocks; entity counts never fall.
        users: external user ids by internal id.
        items: external item ids by internal id.
        protocol: ``"within"`` (each block holds its own test set) or ``"next"`` (block ``k`` is
            tested on block ``k + 1``).
        name: what reports call the stream.
    """

    blocks: tuple[Block, ...]
    users: Vocabulary
    items: Vocabulary
    protocol: str = "within"
    name: str = "stream"

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Block:
        return self.blocks[index]

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def to(self, device: torch.device | str) -> Stream:
        """The same stream with every block on ``device``."""
        blocks = tuple(block.to(device) for block in self.blocks)
        return Stream(blocks, self.users, self.items, self.protocol, self.name)
