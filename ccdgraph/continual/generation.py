"""Stage 1 of CCD: the teachers distilled into a student."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ccdgraph.continual.config import CCDConfig
from ccdgraph.continual.exclusions import exclusions, list_keys
from ccdgraph.continual.scene import Scene
from ccdgraph.distill.knowledge import Knowledge
from ccdgraph.distill.methods import build_parts, check_student
from ccdgraph.distill.trajectory import Trajectories
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.ranking import Scorer
from ccdgraph.train import Objective, Term, embed


def generate_student(
    scene: Scene,
    teacher: Scorer,
    start: Backbone | None,
    others: Iterable[Scorer],
    trajectories: Trajectories | None = None,
) -> Backbone:
    """Stage 1: the teacher distilled into a student, on the interactions of the last block.

    Args:
        scene: where.
        teacher: the ensemble.
        start: weights to start from; ``None`` starts fresh.
        others: proxies and last student; what they list is never a negative either.
        trajectories: lists along the last training of every teacher, for the methods that ask.
    """
    stage, seen = scene.config.generation, scene.known.seen
    student = scene.build(scene.config.student) if start is None else copy.deepcopy(start)
    everyone = torch.arange(seen.num_users, device=scene.device)
    users = scene.sample("taught", everyone, stage.users)
    known = _knowledge(scene, teacher, student, users, trajectories)
    exclude = None
    if stage.exclude_listed:
        taught = list_keys(everyone, known.lists(stage.list_length).items, seen.num_items)
        exclude = exclusions(seen, others, stage.list_length, users, taught)
    parts = [scene.interactions(student, stage.batch_size, exclude=exclude)]
    for part in build_parts(stage.distill, known, stage.settings):
        term = OnTables(part.term) if stage.into == "tables" else part.term
        parts.append(replace(part, term=term))
    scene.fit(student, [Objective(tuple(parts))], stage.fit)
    return student


def _knowledge(
    scene: Scene,
    teacher: Scorer,
    student: Backbone,
    asked: Tensor,
    trajectories: Trajectories | None,
) -> Knowledge:
    """What the ensemble hands over; with the entities of the block, or with everyone known."""
    stage, graph, train = scene.config.generation, scene.known.graph, scene.block.train
    of_block = stage.entities == "block"
    out = embed(student, graph)
    width = out.layers[0].size(1) if stage.into == "tables" else out.user.size(1)
    return Knowledge(
        teacher,
        scene.known.seen,
        dim=width,
        rng=scene.rng,
        users=torch.unique(train.user) if of_block else None,
        items=torch.unique(train.item) if of_block else None,
        asked=asked if stage.users else None,
        batch_size=stage.batch_size,
        trajectories=trajectories,
    )


class OnTables(Term):
    """A term on the embedding tables, the layer before any propagation, not on what is served."""

    def __init__(self, term: Term) -> None:
        super().__init__()
        self.term = term

    def begin_epoch(self, epoch: int) -> None:
        """Passed on."""
        self.term.begin_epoch(epoch)

    def fixed(self, epoch: int) -> Hashable:
        """That of the term, so that its step is not recorded anew in every epoch."""
        return self.term.fixed(epoch)

    def draws(self) -> tuple[torch.Generator, ...]:
        """Those of the term."""
        return self.term.draws()

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        """The term on layer 0."""
        user, item = out.layers[0].split([out.num_users, out.num_items])
        loss: Tensor = self.term(Embeddings(user, item), batch)
        return loss


def check_config(config: CCDConfig) -> None:
    """Refuse a student that no proxy can follow, or whom a method of distillation cannot teach.

    Raises:
        ValueError: it is such a student.
    """
    kind = config.student.kind()
    if issubclass(kind, Backbone) and not kind.inner:
        raise ValueError(
            f"'student.backbone' is {kind.__name__}, which scores pairs by a network, but proxies "
            "are moving averages of embeddings; take another student, as a teacher it fits"
        )
    check_student(config.generation.distill, config.student)
