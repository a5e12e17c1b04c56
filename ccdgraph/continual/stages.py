"""The stages of CCD as functions: models and what is known go in, a trained model comes out."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ccdgraph.continual.config import ReplayConfig, per_block
from ccdgraph.continual.lwckd import LWCKD, Neighbours
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.continual.replay import Memory, ReplayBatches, memorise
from ccdgraph.continual.scene import Scene
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.distill.knowledge import Knowledge
from ccdgraph.distill.methods import build_parts
from ccdgraph.distill.trajectory import Trajectories
from ccdgraph.nn import Backbone, BackboneConfig, Embeddings, MultVAE
from ccdgraph.ranking import Scorer, recommend_lists
from ccdgraph.sampling import Pairs
from ccdgraph.train import Objective, Part, SoftBCE, Term, embed, pairwise


def train_teacher(scene: Scene, member: BackboneConfig) -> Backbone:
    """A fresh teacher, trained on the base block."""
    model, base = scene.build(member), scene.config.base
    part = _interactions(scene, model, base.batch_size, negatives=base.negatives)
    scene.fit(model, [Objective((part,))], base.fit)
    return model


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
    exclude = seen.keys()
    if stage.exclude_listed:
        lists = known.lists(stage.list_length).items
        listed = [_list_keys(everyone, lists, seen.num_items)]
        listed += [_listed(other, seen, stage.list_length, users) for other in others]
        exclude = torch.unique(torch.cat([exclude, *listed]))
    parts = [_interactions(scene, student, stage.batch_size, exclude=exclude)]
    for part in build_parts(stage.distill, known, stage.settings):
        term = OnTables(part.term) if stage.into == "tables" else part.term
        parts.append(replace(part, term=term))
    scene.fit(student, [Objective(tuple(parts))], stage.fit)
    return student


def update_student(scene: Scene, student: Backbone, proxies: Mapping[str, Embeddings]) -> Backbone:
    """Stage 2: the student grown for the block and trained on it, with proxy-guided replay."""
    stage = scene.config.update
    model = scene.grow(student, stage.init, stage.topk)
    replay = per_block(stage.replay, scene.block.index)
    objectives = [Objective((_interactions(scene, model, stage.batch_size),))]
    objectives += _replay(scene, remember(scene, proxies, replay), replay)
    scene.fit(model, objectives, stage.fit)
    return model


def update_teacher(
    scene: Scene, teacher: Backbone, memories: Sequence[Memory], neighbours: Neighbours | None
) -> Backbone:
    """Stage 3 for one member: grown for the block, trained with LWC-KD, PIW and replay.

    A variational member takes the replayed pairs as pseudo-labels: entries of its input rows.

    Args:
        scene: where.
        teacher: the member before the block.
        memories: sources of replay (:func:`remember`).
        neighbours: old neighbours, or ``None`` without LWC-KD.
    """
    stage = scene.config.teacher
    model = scene.grow(teacher, stage.init, stage.topk)
    if not stage.update:
        return model
    replay = per_block(stage.replay, scene.block.index)
    replays = _replay(scene, memories, replay)
    if isinstance(model, MultVAE):
        pseudo = _draw_once(replays, embed(model, scene.known.graph))
        graph = _with_pseudo_labels(scene.known.graph, pseudo, stage.pseudo_label)
        own = scene.among_known(scene.block.train)
        target = _with_pseudo_labels(own, pseudo, stage.pseudo_label)
        part = scene.reconstruction(target, batch_size=stage.batch_size)
        scene.fit(model, [Objective((part,))], stage.fit, graph)
        return model
    parts = [_interactions(scene, model, stage.batch_size)]
    if neighbours is not None and stage.distill_weight:
        parts += _past(scene, teacher, neighbours)
    scene.fit(model, [Objective(tuple(parts)), *replays], stage.fit)
    return model


def remember(scene: Scene, sources: Mapping[str, Embeddings], replay: ReplayConfig) -> list[Memory]:
    """What each of ``sources`` has to replay; their names are fields of ``replay``."""
    draws = {
        "stability": replay.stability,
        "plasticity": replay.plasticity,
        "student": replay.student,
    }
    seen = scene.known.seen
    everyone = torch.arange(seen.num_users, device=scene.device)
    user = scene.sample("replayed", everyone, replay.users)
    return [
        memorise(source, seen, depth=replay.depth, draws=draws[name], user=user)
        for name, source in sources.items()
        if draws[name] > 0
    ]


def _interactions(
    scene: Scene,
    model: Backbone,
    batch_size: int,
    *,
    negatives: int = 1,
    exclude: Tensor | None = None,
) -> Part:
    """Learning from the block itself, in the way of the model's kind."""
    if isinstance(model, MultVAE):
        own = scene.among_known(scene.block.train)
        return scene.reconstruction(own, batch_size=batch_size)
    batches = scene.triplets(
        scene.block.train, batch_size=batch_size, negatives=negatives, exclude=exclude
    )
    return Part(pairwise(model), batches)


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

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        """The term on layer 0."""
        user, item = out.layers[0].split([out.num_users, out.num_items])
        loss: Tensor = self.term(Embeddings(user, item), batch)
        return loss


def _past(scene: Scene, teacher: Backbone, neighbours: Neighbours) -> list[Part]:
    """LWC-KD on the batches of the interactions, with PIW and its clusters when asked."""
    stage, before = scene.config.teacher, scene.known.before
    assert before is not None, "a teacher is updated after the base block only"
    old = embed(teacher, before)
    weight = PIW(old, generator=scene.rng("piw", "cpu")) if stage.personal else None
    past = LWCKD(
        old,
        neighbours,
        weight=weight,
        temperature=stage.temperature,
        num_drawn=stage.num_drawn,
        generator=scene.rng("drawn"),
    )
    parts = [Part(past, None, stage.distill_weight)]
    if weight is not None:
        parts.append(Part(ClusterLoss(weight, torch.unique(scene.block.train.item)), None))
    return parts


def _replay(scene: Scene, memories: Sequence[Memory], replay: ReplayConfig) -> list[Objective]:
    if not memories or replay.weight == 0:
        return []
    batches = ReplayBatches(
        memories,
        scene.known.seen,
        sharpness=replay.sharpness,
        redraw=replay.redraw,
        batch_size=replay.batch_size,
        adaptive=replay.adaptive,
        generator=scene.rng("replay"),
    )
    weight = partial(_annealed, replay.weight, replay.anneal)
    return [Objective((Part(SoftBCE(), batches, weight),))]


def _annealed(weight: float, scale: float, epoch: int) -> float:
    return weight * math.exp(-epoch / scale)


def _draw_once(replays: Sequence[Objective], current: Embeddings) -> list[Pairs]:
    """All pairs of a first draw."""
    sources = [part.batches for objective in replays for part in objective.parts]
    return [pairs for source in sources if source for pairs in source.epoch(0, lambda: current)]


def _with_pseudo_labels(
    graph: BipartiteGraph, pseudo: Sequence[Pairs], weight: float
) -> BipartiteGraph:
    """``graph`` with an edge of ``weight`` for every pair that it lacks."""
    pairs = Interactions.cat(
        [Interactions(graph.user, graph.item)]
        + [Interactions(batch.user, batch.item) for batch in pseudo]
    )
    weights = graph.weight.new_full((len(pairs),), weight)
    weights[: len(graph.weight)] = graph.weight
    return BipartiteGraph.from_interactions(pairs, graph.num_users, graph.num_items, weight=weights)


def _listed(scorer: Scorer, seen: UserItems, k: int, user: Tensor) -> Tensor:
    """Keys of the ``k`` best unseen items of each of ``user`` whom ``scorer`` knows."""
    user = user[user < scorer.num_users]
    known = seen.within(scorer.num_users, scorer.num_items)
    _, item = recommend_lists(scorer, user, min(k, scorer.num_items), known)
    return _list_keys(user, item, seen.num_items)


def _list_keys(user: Tensor, lists: Tensor, num_items: int) -> Tensor:
    return (user.unsqueeze(1) * num_items + lists)[lists >= 0]
