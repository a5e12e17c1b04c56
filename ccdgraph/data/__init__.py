"""Interactions, their sources, and the streams of blocks they are cut into."""

from ccdgraph.data.datasets import (
    DATASETS,
    DatasetName,
    read_dataset,
    skewed_interactions,
    synthetic_stream,
)
from ccdgraph.data.describe import BlockSummary, describe, fingerprint
from ccdgraph.data.events import Events
from ccdgraph.data.filters import deduplicate, k_core
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.presplit import read_presplit, read_split
from ccdgraph.data.readers import read_interactions
from ccdgraph.data.split import append_block, next_protocol, split_stream
from ccdgraph.data.storage import read_stream, write_stream
from ccdgraph.data.stream import Block, Stream
from ccdgraph.data.vocabulary import Vocabulary

__all__ = [
    "DATASETS",
    "Block",
    "BlockSummary",
    "DatasetName",
    "Events",
    "Interactions",
    "Stream",
    "UserItems",
    "Vocabulary",
    "append_block",
    "deduplicate",
    "describe",
    "fingerprint",
    "k_core",
    "next_protocol",
    "read_dataset",
    "read_interactions",
    "read_presplit",
    "read_split",
    "read_stream",
    "skewed_interactions",
    "split_stream",
    "synthetic_stream",
    "write_stream",
]
