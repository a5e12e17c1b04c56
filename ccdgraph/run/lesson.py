"""One training of a static distillation: a model, its parts, and what is noted on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ccdgraph import checkpoint
from ccdgraph.config import rng
from ccdgraph.data import Block
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill import ConCF
from ccdgraph.distill.consensus import Listed
from ccdgraph.distill.trajectory import Snapshots
from ccdgraph.nn import Backbone, Embeddings, MultVAE
from ccdgraph.nn.pair import PairNetwork
from ccdgraph.run.distill_config import Learner
from ccdgraph.run.folder import peak_memory
from ccdgraph.run.plain import plain_dict
from ccdgraph.run.protocol import Ruler
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import Objective, Part, embed, fit, ranking, reconstruction

OnEpoch = Callable[[str, int, int], None]
Validate = Callable[[Embeddings], float | Sequence[float]]


@dataclass(frozen=True)
class Room:
    """What all models of a distillation share.

    Args:
        block: the data, on the device that computes.
        graph: the training interactions of the block.
        ruler: measures and chooses.
        seed: root of every generator.
        fingerprint: of the data.
        on_epoch: is told (label, epochs done, epochs).
    """

    block: Block
    graph: BipartiteGraph
    ruler: Ruler
    seed: int
    fingerprint: str
    on_epoch: OnEpoch

    def rng(self, use: str, what: str) -> torch.Generator:
        """The generator of one use of one model, on the device of the data."""
        return rng(self.seed, use, what, device=self.graph.device)

    def build(self, learner: Learner, use: str) -> Backbone:
        """A fresh model."""
        draw = rng(self.seed, use, "init")
        sizes = self.graph.num_users, self.graph.num_items
        return learner.model.build(*sizes, generator=draw).to(self.graph.device)

    def interactions(self, model: Backbone, learner: Learner, use: str, weight: float) -> Part:
        """Learning from the interactions, in the way of the model's kind."""
        order, size = self.rng(use, "order"), learner.batch_size
        if isinstance(model, MultVAE):
            part = reconstruction(model, self.graph, batch_size=size, generator=order)
            return replace(part, weight=weight)
        triplets = TripletBatches(
            self.block.train,
            self.graph.num_items,
            self.graph.user_items.keys(),
            batch_size=size,
            num_negatives=learner.negatives,
            generator=order,
        )
        return Part(ranking(model), triplets, weight)


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Args:
        out: what it serves.
        notes: parameters, epochs, curves, seconds an epoch, peak memory, metrics.
        lists: top lists along the training ``[V, U, K]``, or ``None``.
    """

    out: Embeddings
    notes: dict[str, Any]
    lists: torch.Tensor | None = None


def train(
    room: Room,
    learner: Learner,
    label: str,
    model: Backbone,
    parts: Sequence[Part],
    watch: Snapshots | None = None,
) -> Trained:
    """Train ``model`` on ``parts`` and measure it.

    Args:
        room: where.
        learner: its settings.
        label: what progress calls it.
        model: a fresh one; it is changed.
        parts: the first brings the batches.
        watch: looks at the model along its training.
    """
    if room.graph.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    look = _Look(room, label, parts, watch)
    validate: Validate | None = watch.beside(None) if watch else None
    if room.ruler.config.select != "last":
        validate = look.select
    result = fit(
        model,
        room.graph,
        [Objective(tuple(parts))],
        learner.fit,
        seed=(room.seed, label),
        validate=None if validate is None else look.timed(validate),
        on_epoch=look.epoch,
    )
    out = look.best if look.best is not None else look.serve(embed(model, room.graph))
    if watch is not None:
        watch.finish(out, result.best_epoch)
    seconds = sorted(look.seconds)
    notes = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.loss),
        "best_epoch": result.best_epoch,
        "seconds_per_epoch": seconds[len(seconds) // 2] if seconds else math.nan,
        "peak_memory": peak_memory(),
        "loss": list(result.loss),
        "valid_curve": look.curve,
        "metrics": {split: room.ruler.measure(out, split) for split in ("valid", "test")},
    }
    if look.heads is not None and look.best is None and not look.heads.alone:
        agreed = Listed(look.heads.ensemble(embed(model, room.graph)), room.graph.num_items)
        notes["ensemble"] = {s: room.ruler.measure(agreed, s) for s in ("valid", "test")}
    return Trained(out, notes, None if watch is None else watch.lists)


class _Look:
    """What is noted of a training after every epoch; time spent on looking is not training's."""

    def __init__(
        self, room: Room, label: str, parts: Sequence[Part], watch: Snapshots | None
    ) -> None:
        self.room, self.label, self.watch = room, label, watch
        heads = [part.term for part in parts if isinstance(part.term, ConCF)]
        self.heads = heads[0] if heads else None
        self.best: Embeddings | None = None  # only of heads: their weights are not kept by epoch
        self.curve: dict[str, float] = {}
        self.seconds: list[float] = []
        self.since, self.aside, self.done = time.perf_counter(), 0.0, 0

    def serve(self, out: Embeddings) -> Embeddings:
        """What is ranked with: a head of ConCF, or the embeddings themselves."""
        if self.heads is None:
            return out
        training = self.heads.training
        with torch.no_grad():
            served = self.heads.eval().served(out)
        self.heads.train(training)
        return served.detach()

    def select(self, out: Embeddings) -> tuple[float, ...]:
        """The validation values, or minus infinity in epochs without a look."""
        if self.watch is not None:
            self.watch(out)
        config = self.room.ruler.config
        if self.done % config.every:
            return (-math.inf,) * (1 + len(config.patience_on))
        served = self.serve(out)
        values = self.room.ruler.select(served)
        if self.heads is not None and values[0] > max(self.curve.values(), default=-math.inf):
            self.best = served
        self.curve[str(self.done)] = values[0]
        return values

    def timed(self, validate: Validate) -> Validate:
        """``validate`` with its time set aside."""

        def run(out: Embeddings) -> float | Sequence[float]:
            started = time.perf_counter()
            values = validate(out)
            self.aside += time.perf_counter() - started
            return values

        return run

    def epoch(self, done: int, total: int, loss: float) -> None:
        """Note how long the epoch took."""
        now = time.perf_counter()
        self.seconds.append(now - self.since - self.aside)
        self.done = done
        self.room.on_epoch(self.label, done, total)
        self.since, self.aside = time.perf_counter(), 0.0


def store(folder: Path, room: Room, learner: Learner, trained: Trained) -> None:
    """Keep a trained model: what it serves, its lists and its notes."""
    tensors = {"user": trained.out.user, "item": trained.out.item}
    if trained.out.network is not None:
        weights = trained.out.network.tensors()
        tensors |= {f"network.{name}": weight for name, weight in weights.items()}
    if trained.lists is not None:
        tensors["lists"] = trained.lists.to(torch.int32)
    meta = {"fingerprint": room.fingerprint, "learner": plain_dict(learner), "notes": trained.notes}
    checkpoint.save(folder, tensors, meta)


def take(folder: Path, room: Room) -> Trained:
    """A model that was stored.

    Raises:
        ValueError: it was trained on other data.
    """
    tensors, meta = checkpoint.load(folder, room.graph.device)
    if meta["fingerprint"] != room.fingerprint:
        raise ValueError(
            f"'{folder}' was trained on other data: 'fingerprint' is {meta['fingerprint'][:12]}, "
            f"not {room.fingerprint[:12]}"
        )
    lists = tensors["lists"].long() if "lists" in tensors else None
    network = {
        name.removeprefix("network."): weight
        for name, weight in tensors.items()
        if name.startswith("network.")
    }
    out = Embeddings(
        tensors["user"], tensors["item"], network=PairNetwork.of(network) if network else None
    )
    return Trained(out, meta["notes"], lists)
