"""Stages 2 and 3 of CCD, and its base teachers: models go in, a trained model comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ccdgraph.continual.config import ReplayConfig, per_block
from ccdgraph.continual.exclusions import exclusions
from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.continual.replay import Memory, ReplayBatches, memorise
from ccdgraph.continual.scene import Scene
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Backbone, BackboneConfig, Embeddings, MultVAE
from ccdgraph.ranking import Scorer
from ccdgraph.sampling import Pairs
from ccdgraph.train import Objective, Part, SoftBCE, embed


def train_teacher(scene: Scene, member: BackboneConfig) -> Backbone:
    """A fresh teacher, trained on the base block."""
    model, base = scene.build(member), scene.config.base
    part = scene.interactions(model, base.batch_size, negatives=base.negatives)
    scene.fit(model, [Objective((part,))], base.fit)
    return model


def update_student(
    scene: Scene, student: Backbone, knowledge: Mapping[str, Embeddings]
) -> Backbone:
    """Stage 2: the student grown for the block and trained on it, with proxy-guided replay.

    Args:
        scene: where.
        student: the one that served the last block, or was distilled after it.
        knowledge: the proxies, whom replay asks; what they and any others list is no negative where
            ``exclude_listed`` says so.
    """
    stage = scene.config.update
    model = scene.grow(student, stage.init, stage.topk)
    replay = per_block(stage.replay, scene.block.index)
    proxies = {name: knowledge[name] for name in ("stability", "plasticity")}
    exclude = unlisted(scene, knowledge.values(), stage.exclude_listed)
    objectives = [Objective((scene.interactions(model, stage.batch_size, exclude=exclude),))]
    objectives += _replay(scene, remember(scene, proxies, replay), replay)
    scene.fit(model, objectives, stage.fit)
    return model


def unlisted(scene: Scene, others: Iterable[Scorer], k: int) -> Tensor | None:
    """What is no negative of the block, if that is more than the seen: the ``k`` best of others."""
    if not k:
        return None
    seen = scene.known.seen
    return exclusions(seen, others, k, torch.arange(seen.num_users, device=scene.device))


def update_teacher(
    scene: Scene,
    teacher: Backbone,
    memories: Sequence[Memory],
    neighbours: Neighbours | None,
    exclude: Tensor | None = None,
) -> Backbone:
    """Stage 3 for one member: grown for the block, trained with LWC-KD, PIW and replay.

    A variational member takes the replayed pairs as pseudo-labels: entries of its input rows.

    Args:
        scene: where.
        teacher: the member before the block.
        memories: sources of replay (:func:`remember`).
        neighbours: old neighbours, or ``None`` without LWC-KD.
        exclude: keys of pairs that are no negatives; the seen ones by default.
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
        part = scene.reconstruction(model, target, batch_size=stage.batch_size)
        scene.fit(model, [Objective((part,))], stage.fit, graph)
        return model
    parts = [scene.interactions(model, stage.batch_size, exclude=exclude)]
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
    seen = _hidden(scene, replay)
    everyone = torch.arange(seen.num_users, device=scene.device)
    user = scene.sample("replayed", everyone, replay.users)
    return [
        memorise(
            source,
            seen,
            depth=replay.depth,
            draws=draws[name],
            user=user,
            temperature=replay.temperature,
        )
        for name, source in sources.items()
        if draws[name] > 0 and replay.weight > 0
    ]


def _hidden(scene: Scene, replay: ReplayConfig) -> UserItems:
    """What no list or rank of the replay counts."""
    seen = scene.known.seen
    if replay.unseen:
        return seen
    return UserItems(torch.zeros_like(seen.indptr), seen.item[:0], seen.num_items)


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
        _hidden(scene, replay),
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
