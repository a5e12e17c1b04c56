"""Interactions, their sources, and the streams of blocks they are cut into."""

from ccdgraph.data.datasets import synthetic_stream
from ccdgraph.data.events import Events
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.presplit import read_presplit
from ccdgraph.data.split import append_block, split_stream
from ccdgraph.data.stream import Block, Stream
from ccdgraph.data.vocabulary import Vocabulary

__all__ = [
    "Block",
    "Events",
    "Interactions",
    "Stream",
    "UserItems",
    "Vocabulary",
    "append_block",
    "read_presplit",
    "split_stream",
    "synthetic_stream",
]
