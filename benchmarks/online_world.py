"""The world of benchmarks/online.py: a stream, a biased teacher of it, and a student measured."""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ccdgraph.calibration import Reliability, labelled_pairs, predicted, reliability
from ccdgraph.config import rng
from ccdgraph.continual import Online, OnlineConfig
from ccdgraph.continual.config import BaseConfig
from ccdgraph.data import Stream, read_presplit, synthetic_stream
from ccdgraph.distill.labels import LabelWriter, label_block, teacher_before, version_after
from ccdgraph.evaluate import evaluate, seen_items
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.run.learner import pick_device
from ccdgraph.train import FitConfig

LAGS, NEGATIVES, METRIC = (0, 1, 2, 3), 4, "recall@20"
FIRST = max(LAGS) + 1  # block that is measured first; a frozen teacher learnt no later one
TEACHERS = {"updated": None, "frozen": max(LAGS)}


class Biased:
    """A teacher that is too confident, and that raises the scores of a fifth of the items."""

    def __init__(self, teacher: Embeddings, seed: int, slope: float, lift: float) -> None:
        self.teacher, self.slope = teacher, slope
        self.num_users, self.num_items = teacher.num_users, teacher.num_items
        draw = torch.rand(100_000, generator=rng(seed, "bias"))[: teacher.num_items]
        self.lift = lift * (draw < 0.2).to(teacher.item)

    def scores(self, user: Tensor) -> Tensor:
        """``[B] -> [B, I]``."""
        return self.slope * self.teacher.scores(user) + self.lift


@dataclass(frozen=True)
class World:
    """One stream, its seed, its store of labels, what a teacher cost, and a student's base."""

    stream: Stream
    seed: int
    store: Path
    seconds: dict[str, float]
    base: dict[str, Tensor]


def config(options: argparse.Namespace, dim: int, **more: Any) -> OnlineConfig:
    """Settings of a teacher or a student."""
    fit = FitConfig(epochs=options.epochs, lr=1e-2)
    base = BaseConfig(1024, NEGATIVES, replace(fit, epochs=3 * options.epochs))
    model = BackboneConfig(options.backbone, dim)
    shared = {"batch_size": 1024, "negatives": NEGATIVES, "fit": fit, "hard": "bce"}
    return OnlineConfig(model, base, **shared, soft="pointwise", **more)


def stream_of(options: argparse.Namespace, seed: int) -> Stream:
    """The stream of a seed, where it is learnt; real data are the same for all."""
    device = pick_device(options.device)
    if options.data == "yelp":
        stream = read_presplit(options.path)
        return replace(stream, blocks=stream.blocks[: options.blocks + 1]).to(device)
    return synthetic_stream(
        *(options.users, options.items, options.rows),
        num_blocks=options.blocks,
        drift=options.drift,
        base=0.4,
        seed=seed,
    ).to(device)


def make_world(options: argparse.Namespace, seed: int, folder: Path, lift: float) -> World:
    """The stream, and labels of every age that some student asks for."""
    stream = stream_of(options, seed)
    wanted = {
        (teacher_before(block, lag=lag, freeze=freeze), block)
        for block in range(1, len(stream))
        for lag in LAGS
        for freeze in TEACHERS.values()
    }
    teacher, seconds = (
        Online(config(options, options.teacher), seed=seed),
        {"train": 0.0, "label": 0.0},
    )
    with LabelWriter(folder, {}) as writer:
        for block in stream.blocks[:-1]:
            started = time.perf_counter()
            scorer = Biased(teacher.update(block), seed, options.slope, lift)
            trained = time.perf_counter()
            seconds["train"] += trained - started
            for _, later in (pair for pair in wanted if pair[0] == block.index):
                version = version_after("teacher", block.index)
                labels = label_block(scorer, stream, later, version=version, k=options.k)
                sizes = {"num_users": scorer.num_users, "num_items": scorer.num_items}
                started = time.perf_counter() if later > block.index + 1 else trained
                writer.write(labels, **sizes)
                if later == block.index + 1:  # what one student of the newest teacher needs
                    seconds["label"] += time.perf_counter() - started
    student = Online(config(options, options.student), seed=seed)
    student.update(stream[0])
    return World(stream, seed, folder, seconds, student.state())


@dataclass(frozen=True)
class Measured:
    """A student, block by block: recall of users, and predictions against outcomes."""

    recall: dict[int, pd.Series]
    pairs: dict[int, tuple[Tensor, Tensor]]
    valid: float

    @property
    def users(self) -> pd.Series:
        """Mean recall of every user over the measured blocks."""
        return pd.concat(self.recall.values()).groupby(level=0).mean()

    def table(self) -> Reliability:
        """Reliability over all measured blocks."""
        probability, label = (torch.cat(part) for part in zip(*self.pairs.values(), strict=True))
        return reliability(probability, label)


def learn(world: World, settings: OnlineConfig, first: int = FIRST) -> Measured:
    """A student of the stream, measured right after each block; the base has no labels."""
    student, recall, pairs, valid = Online(settings, seed=world.seed), {}, {}, []
    student.restore(world.base, world.stream.blocks[:1])
    for block in world.stream.blocks[1:]:
        out = student.update(block)
        if block.index < first:
            continue
        place = {"tested": block.index, "learnt": block.index}
        seen = seen_items(world.stream, **place)
        found = evaluate(out, block.test, seen, ks=(20,)).to_frame().set_index("user")[METRIC]
        recall[block.index] = found
        draw = rng(world.seed, "pairs", block.index, device=block.test.user.device)
        held = labelled_pairs(block.test, seen, negatives=NEGATIVES, generator=draw)
        pairs[block.index] = (predicted(out, held).cpu(), held.label.cpu())
        known = seen_items(world.stream, **place, split="valid")
        valid.append(evaluate(out, block.valid, known, ks=(20,)).mean()[METRIC])
    return Measured(recall, pairs, statistics.mean(valid))
