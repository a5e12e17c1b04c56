"""The world of benchmarks/drift.py: streams on which some users turn, and a learner of them."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from ccdgraph.config import rng
from ccdgraph.continual import AdaptiveCCD, AdaptiveConfig, CCDConfig
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.data import Interactions, Stream, synthetic_stream
from ccdgraph.evaluate import AccuracyMatrix, evaluate_block
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import FitConfig


def planted(options: argparse.Namespace, seed: int, share: float) -> Stream:
    """The stream of a seed, of whose users a share turns."""
    stream = synthetic_stream(
        *(options.users, options.items, options.rows),
        num_blocks=options.blocks,
        drift=0.0,
        base=0.3,
        seed=seed,
    )
    return turned(stream, options.at, share, seed) if share else stream


def turned(stream: Stream, at: int, share: float, seed: int) -> Stream:
    """``stream`` whose users, a ``share`` of them, want other items from block ``at`` on."""
    known, draw = stream[at - 1].num_items, rng(seed, "drift")
    other = torch.randperm(known, generator=draw)
    turns = torch.rand(stream[-1].num_users, generator=draw) < share

    def turn(rows: Interactions) -> Interactions:
        moved = turns[rows.user] & (rows.item < known)
        return replace(
            rows, item=torch.where(moved, other[rows.item.clamp(max=known - 1)], rows.item)
        )

    blocks = [
        block
        if block.index < at
        else replace(block, train=turn(block.train), valid=turn(block.valid), test=turn(block.test))
        for block in stream
    ]
    return replace(stream, blocks=tuple(blocks))


def ccd(epochs: int) -> CCDConfig:
    """A small ensemble and student."""
    fit = FitConfig(epochs=epochs, lr=1e-2)
    replay = ReplayConfig(depth=50)
    return CCDConfig(
        student=BackboneConfig("MF", 8),
        teachers=(BackboneConfig("MF", 32), BackboneConfig("LightGCN", 32)),
        base=BaseConfig(batch_size=1024, negatives=2, fit=replace(fit, epochs=3 * epochs)),
        generation=GenerationConfig(
            list_length=20, rest_items=200, rest_users=200, start="previous", fit=fit
        ),
        update=StudentConfig(replay=(replay,), fit=fit),
        teacher=TeacherConfig(replay=(replace(replay, anneal=5.0),), personal=False, fit=fit),
    )


def learnt(
    stream: Stream, config: AdaptiveConfig, seed: int, *, measure: bool = True
) -> tuple[AdaptiveCCD, AccuracyMatrix]:
    """A learner after the stream, and the recall of its student."""
    learner, matrix = AdaptiveCCD(config, seed=seed), AccuracyMatrix.empty(len(stream))
    for block in stream:
        student = learner.update(block)
        for tested in range(block.index + 1) if measure else ():
            found = evaluate_block(student, stream, tested, block.index, ks=(20,))["all"]
            matrix = matrix.set(block.index, tested, found.mean()["recall@20"])
    return learner, matrix
