"""The world of benchmarks/online.py: a stream, a biased teacher of it, and a student measured."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Sequence
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
from ccdgraph.data import Block, Stream, read_presplit, synthetic_stream
from ccdgraph.distill.labels import LabelWriter, label_block, teacher_before, version_after
from ccdgraph.evaluate import evaluate, seen_items
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.ranking import Scorer
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
    """One stream, its seed, its store of labels, what a teacher cost, and a student's base.

    Lessons are the blocks as models learn them, without validation rows where all epochs count.
    """

    stream: Stream
    lessons: Sequence[Block]
    seed: int
    store: Path
    seconds: dict[str, float]
    base: dict[str, Tensor]


def config(options: argparse.Namespace, dim: int, **more: Any) -> OnlineConfig:
    """Settings of a teacher or a student."""
    how = {name: getattr(options, name) for name in ("epochs", "lr", "weight_decay", "patience")}
    fit, batch = FitConfig(**how), options.batch
    base = BaseConfig(batch, NEGATIVES, replace(fit, epochs=options.base * options.epochs))
    model = BackboneConfig(options.backbone, dim)
    shared = {"batch_size": batch, "negatives": NEGATIVES, "fit": fit, "hard": "bce"}
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


def lessons_of(options: argparse.Namespace, stream: Stream) -> list[Block]:
    """The blocks; with ``validate`` 0 without validation rows, so that the last epoch is kept."""
    if options.validate:
        return list(stream)
    return [replace(block, valid=block.valid[:0]) for block in stream]


def make_world(options: argparse.Namespace, seed: int, folder: Path, lift: float) -> World:
    """The stream, and labels of every age that some student asks for; taken up when made before."""
    stream, made = stream_of(options, seed), folder / "world.pt"
    lessons = lessons_of(options, stream)
    if not made.exists():
        shutil.rmtree(folder / "labels", ignore_errors=True)  # what a process that ended left
        seconds = label_stream(options, stream, seed, folder / "labels", lift)
        student = Online(config(options, options.student), seed=seed)
        student.update(lessons[0])
        base = {name: value.cpu() for name, value in student.state().items()}
        write_whole(made, {"seconds": seconds, "base": base})
    kept = torch.load(made, weights_only=False)
    return World(stream, lessons, seed, folder / "labels", kept["seconds"], kept["base"])


def label_stream(
    options: argparse.Namespace, stream: Stream, seed: int, store: Path, lift: float
) -> dict[str, float]:
    """Let a biased teacher label the stream; the seconds it took."""
    wanted = {
        (teacher_before(block, lag=lag, freeze=freeze), block)
        for block in range(1, len(stream))
        for lag in LAGS
        for freeze in TEACHERS.values()
    }
    teacher = Online(config(options, options.teacher), seed=seed)
    seconds = {"train": 0.0, "label": 0.0}
    with LabelWriter(store, {}) as writer:
        for block in lessons_of(options, stream)[:-1]:
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
    return seconds


def write_whole(path: Path, value: Any) -> None:
    """A file that is there only when it is complete."""
    half = path.with_suffix(".half")
    torch.save(value, half)
    os.replace(half, path)


@dataclass(frozen=True)
class Measured:
    """A student, block by block: users and their recall; predictions, outcomes, users of pairs."""

    recall: dict[int, tuple[Tensor, Tensor]]
    pairs: dict[int, tuple[Tensor, Tensor, Tensor]]
    valid: float

    @property
    def users(self) -> pd.Series:
        """Mean recall of every user over the measured blocks."""
        user, value = (torch.cat(part).numpy() for part in zip(*self.recall.values(), strict=True))
        return pd.Series(value, user).groupby(level=0).mean()

    def table(self) -> Reliability:
        """Reliability over all measured blocks."""
        return reliability(*self.predictions()[:2])

    def predictions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions, outcomes and users of the pairs of all measured blocks."""
        probability, label, user = zip(*self.pairs.values(), strict=True)
        return torch.cat(probability), torch.cat(label), torch.cat(user)


class Exam:
    """What every student is asked after a block: the same pairs, the same masks."""

    def __init__(self, world: World, block: Block) -> None:
        place = {"tested": block.index, "learnt": block.index}
        self.block, self.seen = block, seen_items(world.stream, **place)
        self.known = seen_items(world.stream, **place, split="valid")
        draw = rng(world.seed, "pairs", block.index, device=block.test.user.device)
        self.held = labelled_pairs(block.test, self.seen, negatives=NEGATIVES, generator=draw)
        self.answers = self.held.label.cpu(), self.held.user.int().cpu()

    def __call__(self, out: Scorer) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], float]:
        """Users and their recall, pairs, and mean validation recall."""
        found = evaluate(out, self.block.test, self.seen, ks=(20,)).to_frame()
        recall = tuple(torch.tensor(found[name].to_numpy()) for name in ("user", METRIC))
        valid = evaluate(out, self.block.valid, self.known, ks=(20,)).mean()[METRIC]
        pairs = (predicted(out, self.held).cpu(), *self.answers)
        return recall, pairs, valid


def learn(world: World, settings: OnlineConfig, first: int = FIRST) -> Measured:
    """A student of the stream, measured right after each block; the base has no labels."""
    return learn_all(world, [settings], first)[0]


def learn_all(world: World, wanted: Sequence[OnlineConfig], first: int = FIRST) -> list[Measured]:
    """Students that differ in their weight and in the age and place of labels.

    Students are the same for as long as they read the same labels, and learnt once till then.
    """
    exams = {block.index: Exam(world, block) for block in world.stream.blocks[first:]}
    done: dict[Any, tuple[Any, dict[str, Tensor]]] = {}
    for settings in wanted:
        student, state = None, world.base
        for block in world.lessons[1:]:
            path = history(settings, block.index)
            if path not in done:
                if student is None:
                    student = Online(settings, seed=world.seed)
                    student.restore(state, world.lessons[: block.index])
                out, exam = student.update(block), exams.get(block.index)
                done[path] = (None if exam is None else exam(out), student.state())
            state = done[path][1]
    return [
        measured({index: done[history(settings, index)][0] for index in exams})
        for settings in wanted
    ]


def history(settings: OnlineConfig, block: int) -> tuple[Any, ...]:
    """What a student has read up to a block, which makes it what it is."""
    if settings.labels is None:
        return (block,)
    read = (
        teacher_before(index, lag=settings.lag, freeze=settings.freeze)
        for index in range(1, block + 1)
    )
    return (settings.into, settings.weight, *read)


def measured(found: dict[int, Any]) -> Measured:
    """The answers of a student by block."""
    recall, pairs, valid = zip(*found.values(), strict=True)
    by_block = (dict(zip(found, values, strict=True)) for values in (recall, pairs))
    return Measured(*by_block, statistics.mean(valid))
