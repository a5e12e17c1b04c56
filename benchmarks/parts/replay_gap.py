"""Experiment 9: how far a student falls behind its proxies, and what replay recovers.

At every block the student is trained several times from the same state: without replay, and with
pairs drawn uniformly or by rank disparity, one draw a block. After every epoch the rank that the
student gives to each item of a proxy's list is compared with its place there. ``experiments.py``
calls this.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.continual.config import per_block
from ccdgraph.continual.known import arrive
from ccdgraph.continual.replay import Memory, ReplayBatches
from ccdgraph.continual.scene import Scene
from ccdgraph.continual.stages import remember
from ccdgraph.data import Stream, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.objective import Objective, Part, SoftBCE
from ccdgraph.ranking import by_chunks, mask_seen, ranks_of
from ccdgraph.train import embed

EPOCHS = (0, 1, 5, 10, 20, 30)  # looked at; the published setting learns ten
# How pairs are drawn: by disparity or not, and the sharpness.
DRAWS = {"uniform": (False, 0.0), "sharpness 1e-4": (True, 1e-4), "sharpness 1e-2": (True, 1e-2)}

Gaps = dict[int, list[Tensor]]  # by epoch, of every memory ``[U, N]``


def rank_gap(out: Embeddings, memory: Memory, seen: UserItems) -> Tensor:
    """Places by which listed items are lower in ``out``'s own list, ``[U, N]``; padding has 0."""

    def count(place: Tensor) -> Tensor:
        user = memory.user[place]
        scores = mask_seen(out.scores(user), user, seen)
        return ranks_of(scores, memory.item[place].clamp(min=0))

    everyone = torch.arange(len(memory.user), device=memory.user.device)
    ranks = torch.cat(by_chunks(count, everyone, out.num_items, copies=6))
    gap = ranks - torch.arange(memory.item.size(1), device=ranks.device)
    return gap.masked_fill(memory.item < 0, 0).int()


@dataclass
class Watch:
    """Looks at a model before and along its training, as ``Scene.watch``."""

    memories: Sequence[Memory]
    seen: UserItems
    gaps: Gaps = field(default_factory=dict)
    epoch: int = 0

    def look(self, out: Embeddings) -> None:
        """Keep the gaps to every memory, where the epoch is one that is asked for."""
        if self.epoch in EPOCHS:
            self.gaps[self.epoch] = [rank_gap(out, memory, self.seen) for memory in self.memories]
        self.epoch += 1

    def beside(self, validate: Callable[[Embeddings], float] | None) -> Any:
        """Look after every epoch."""

        def both(out: Embeddings) -> float:
            self.look(out)
            return validate(out) if validate else 0.0

        return both

    def finish(self, out: Embeddings, best: int) -> None:
        """Nothing: the epoch that is kept is not of interest here."""


def learn(scene: Scene, student: Any, memories: Sequence[Memory], draw: str | None) -> Any:
    """The gaps along one training of the student, and the keys of the pairs that were replayed."""
    stage, watch = scene.config.update, Watch(memories, scene.known.seen)
    scene = replace(scene, watch=watch)
    model = scene.grow(student, stage.init, stage.topk)
    watch.look(embed(model, scene.known.graph))
    objectives, batches = [Objective((scene.interactions(model, stage.batch_size),))], None
    if draw is not None:
        adaptive, sharpness = DRAWS[draw]
        setting = per_block(stage.replay, scene.block.index)
        batches = ReplayBatches(
            memories, scene.known.seen, sharpness=sharpness, redraw=stage.fit.epochs,
            batch_size=setting.batch_size, adaptive=adaptive, generator=scene.rng("replay"),
        )  # fmt: skip

        def weight(epoch: int) -> float:
            return setting.weight * math.exp(-epoch / setting.anneal)

        objectives.append(Objective((Part(SoftBCE(), batches, weight),)))
    scene.fit(model, objectives, stage.fit)
    if batches is None or batches.pairs is None:
        return watch.gaps, None
    return watch.gaps, batches.pairs.user * scene.known.seen.num_items + batches.pairs.item


def measure(config: CCDConfig, stream: Stream, seed: int) -> dict[str, dict[str, float]]:
    """Means over blocks: gaps by epoch, and at the end those of drawn and of other pairs."""
    fit = replace(config.update.fit, epochs=max(EPOCHS), patience=0, min_steps=0)
    watched = replace(config, update=replace(config.update, fit=fit, updates=1))
    learner, found = CCD(config, seed=seed), defaultdict[str, Any](lambda: defaultdict(list))
    for block in stream:
        if block.index:
            cumulative = config.graph == "cumulative"
            known = arrive(learner.known, block, cumulative=cumulative, decay=config.decay)
            scene = Scene(block, known, watched, (seed, block.index, "student", 0))
            proxies = {name: learner.knowledge[name] for name in ("stability", "plasticity")}
            memories = remember(scene, proxies, per_block(watched.update.replay, block.index))
            plain, _ = learn(scene, learner.student, memories, None)
            _by_epoch(found["no replay"], plain)
            for draw in DRAWS:
                gaps, keys = learn(scene, learner.student, memories, draw)
                _by_epoch(found[draw], gaps)
                drawn = [_drawn(memory, keys, known.seen.num_items) for memory in memories]
                _parts(found[draw], plain, gaps, drawn)
        learner.update(block)
    return {
        name: {key: statistics.fmean(values) for key, values in row.items()}
        for name, row in found.items()
    }


def _by_epoch(row: dict[str, list[float]], gaps: Gaps) -> None:
    for epoch in EPOCHS:
        row[f"epoch {epoch}"].append(_mean(gaps[epoch], None))


def _mean(gaps: Sequence[Tensor], chosen: Sequence[Tensor] | None) -> float:
    masks = chosen or [torch.ones_like(gap, dtype=torch.bool) for gap in gaps]
    return float(torch.cat([g[m] for g, m in zip(gaps, masks, strict=True)]).float().mean())


def _drawn(memory: Memory, keys: Tensor, num_items: int) -> Tensor:
    return torch.isin(memory.user.unsqueeze(1) * num_items + memory.item, keys)


def _parts(
    row: dict[str, list[float]], without: Gaps, replayed: Gaps, drawn: Sequence[Tensor]
) -> None:
    """Shares of the gap that are gone, of the pairs that were drawn and of the others."""
    others = [~mask for mask in drawn]
    for epoch in EPOCHS[-3:]:
        for name, chosen in (("drawn", drawn), ("others", others)):
            share = 1 - _mean(replayed[epoch], chosen) / _mean(without[epoch], chosen)
            row[f"{name} recovered, {epoch}"].append(share)
