"""The stream that a configuration asks for, checked before anything is trained on it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from ccdgraph.continual import OnlineConfig
from ccdgraph.data import (
    DATASETS,
    Events,
    Stream,
    Vocabulary,
    next_protocol,
    read_dataset,
    read_interactions,
    read_presplit,
    read_split,
    read_stream,
    split_stream,
    synthetic_stream,
)
from ccdgraph.distill.labels import StoreReader, identity
from ccdgraph.nn import BackboneConfig
from ccdgraph.run.config import DataConfig, RunConfig, Source
from ccdgraph.run.learner import within


def open_stream(config: DataConfig) -> Stream:
    """The stream of ``config``, on the CPU.

    Raises:
        ValueError: the data cannot be used; the message names the file, row or field.
        OSError: a file is missing or cannot be read.

    >>> len(open_stream(DataConfig(max_blocks=2)))
    2
    """
    stream = _read(config)
    keep = config.max_blocks
    return _first(stream, keep) if 0 < keep < len(stream) else stream


def detect_source(path: str | Path) -> Source:
    """Which kind of source lies at ``path``."""
    path = Path(path)
    if (path / "stream.json").exists():
        return "stream"
    if any(path.glob("block_*.csv*")):
        return "presplit"
    if any(path.glob("train.csv*")):
        return "split"
    return "events"


def check_stream(config: RunConfig, stream: Stream) -> None:
    """Refuses a stream that a run would fail on later.

    Raises:
        ValueError: a block lacks training or test rows, a list is longer than the catalogue, or a
            backbone cannot be built.
    """
    longest, catalogue = max(config.evaluate.ks), stream[0].num_items
    if longest > catalogue:
        raise ValueError(
            f"'evaluate.ks' asks for {longest} items, but the base block of '{stream.name}' has "
            f"{catalogue}; use shorter lists"
        )
    for block in stream:
        if len(block.train) == 0:
            raise ValueError(f"block {block.index} of '{stream.name}' has no training rows")
        if len(block.test) == 0 and tested_blocks(stream, block.index):
            raise ValueError(
                f"block {block.index} of '{stream.name}' has no test rows to evaluate on"
            )
    if isinstance(config.learner, OnlineConfig):
        _check_labels(config.learner, stream)
    if config.ccd is not None and not config.ccd.teachers:
        raise ValueError("'ccd.teachers' is empty; the ensemble needs at least one member")
    for model in within(config.learner, BackboneConfig):
        model.build(2, 2)


def _check_labels(config: OnlineConfig, stream: Stream) -> None:
    """Refuses a store that some block would not find its labels in."""
    if config.labels is None:
        return
    data = identity(stream)
    reader = StoreReader(config.labels, config.teacher, config.lag, config.freeze, data)
    for block in range(1, len(stream)):
        reader.read(block)


def tested_blocks(stream: Stream, learnt: int) -> range:
    """Blocks whose test part is measured after block ``learnt``.

    Under ``"next"`` that is the block itself, whose test part lies in the block after it; the last
    block may have none.
    """
    if stream.protocol == "within":
        return range(learnt + 1)
    last = learnt == len(stream) - 1
    return range(learnt, learnt if last and len(stream[learnt].test) == 0 else learnt + 1)


def _read(config: DataConfig) -> Stream:
    if config.source == "synthetic":
        return synthetic_stream(
            **asdict(config.synthetic),
            base=config.base,
            num_blocks=config.num_blocks,
            protocol=config.protocol,
            seed=config.seed,
        )
    assert config.path is not None, "checked by the configuration"
    if config.source == "presplit":
        given = read_presplit(config.path)
        return given if config.protocol == "within" else next_protocol(given, seed=config.seed)
    if config.source == "split":
        return read_split(config.path)
    if config.source == "stream":
        return read_stream(config.path)
    return split_stream(
        _events(config, config.path),
        base=config.base,
        num_blocks=config.num_blocks,
        by=config.by,
        protocol=config.protocol,
        ratios=config.ratios,
        seed=config.seed,
    )


def _events(config: DataConfig, path: str) -> Events:
    if config.source in DATASETS:
        return read_dataset(
            config.source,
            path,
            events=config.events,
            duplicates=config.duplicates,
            min_rating=config.min_rating,
            k_core=config.k_core,
            download=config.download,
        )
    return read_interactions(
        path,
        user=config.user,
        item=config.item,
        time=config.time,
        rating=config.rating,
        time_unit=config.time_unit,
        header=config.header,
        duplicates=config.duplicates,
        min_rating=config.min_rating,
        k_core=config.k_core,
    )


def _first(stream: Stream, num: int) -> Stream:
    last = stream[num - 1]
    users = Vocabulary(stream.users.ids[: last.num_users])
    items = Vocabulary(stream.items.ids[: last.num_items])
    return replace(stream, blocks=stream.blocks[:num], users=users, items=items)
