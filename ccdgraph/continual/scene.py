"""Where a stage of CCD takes place: its block, what is known there, its seeds and its selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual.config import CCDConfig
from ccdgraph.continual.growth import Initialisation, grow
from ccdgraph.continual.known import Known
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems, is_in
from ccdgraph.data.stream import Block
from ccdgraph.distill.trajectory import Snapshots
from ccdgraph.nn import Backbone, BackboneConfig, Embeddings, MultVAE
from ccdgraph.sampling import TripletBatches
from ccdgraph.selection import Validation
from ccdgraph.train import FitConfig, Objective, Part, embed, fit, ranking, reconstruction


@dataclass(frozen=True)
class Scene:
    """Where a stage takes place.

    Args:
        block: the block that is learnt.
        known: what has arrived, the block included.
        config: all settings.
        seed: parts of the seed of every draw of the stage.
        on_epoch: progress callback of :func:`ccdgraph.train.fit`.
        watch: looks at the model along its training.
    """

    block: Block
    known: Known
    config: CCDConfig
    seed: tuple[int | str, ...]
    on_epoch: Callable[[int, int, float], None] | None = None
    watch: Snapshots | None = None

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.known.graph.device

    def rng(self, use: str, device: torch.device | str | None = None) -> torch.Generator:
        """The generator of one use within the stage; on the device of the data by default."""
        return rng(*self.seed, use, device=self.device if device is None else device)

    def sample(self, use: str, ids: Tensor, size: int) -> Tensor:
        """``size`` of the distinct ``ids`` in ascending order, or all of them where it is 0."""
        if not 0 < size < len(ids):
            return ids
        order = torch.randperm(len(ids), generator=self.rng(use), device=ids.device)
        return ids[order[:size]].sort().values

    def build(self, model: BackboneConfig) -> Backbone:
        """A fresh backbone over all known entities."""
        graph = self.known.graph
        fresh = model.build(graph.num_users, graph.num_items, generator=self.rng("init", "cpu"))
        return fresh.to(self.device)

    def grow(self, model: Backbone, init: Initialisation, topk: int) -> Backbone:
        """``model`` with rows for everyone known now."""
        generator = self.rng("grow", "cpu")
        return grow(model, self.known.history, init=init, topk=topk, generator=generator)

    def triplets(
        self,
        rows: Interactions,
        *,
        batch_size: int,
        negatives: int = 1,
        exclude: Tensor | None = None,
    ) -> TripletBatches:
        """``rows`` with negatives that nobody is known to have, or outside ``exclude``."""
        seen = self.known.seen
        return TripletBatches(
            rows,
            seen.num_items,
            seen.keys() if exclude is None else exclude,
            batch_size=batch_size,
            num_negatives=negatives,
            generator=self.rng("triplets"),
        )

    def interactions(
        self,
        model: Backbone,
        batch_size: int,
        *,
        negatives: int = 1,
        exclude: Tensor | None = None,
    ) -> Part:
        """Learning from the block itself, in the way of the model's kind."""
        rows = self.block.train
        if isinstance(model, MultVAE):
            return self.reconstruction(model, self.among_known(rows), batch_size=batch_size)
        batches = self.triplets(rows, batch_size=batch_size, negatives=negatives, exclude=exclude)
        return Part(ranking(model), batches)

    def among_known(self, rows: Interactions) -> BipartiteGraph:
        """``rows`` alone as edges among everyone known."""
        graph = self.known.graph
        return BipartiteGraph.from_interactions(rows, graph.num_users, graph.num_items)

    def reconstruction(self, model: MultVAE, target: BipartiteGraph, *, batch_size: int) -> Part:
        """How a variational model learns: the rows of ``target`` for those who have any."""
        return reconstruction(model, target, batch_size=batch_size, generator=self.rng("users"))

    def fit(
        self,
        model: Backbone,
        objectives: Sequence[Objective],
        settings: FitConfig,
        graph: BipartiteGraph | None = None,
    ) -> None:
        """Train ``model``; the epoch with the best Recall@20 on the block's validation is kept."""
        graph = self.known.graph if graph is None else graph
        validate = self._validation()
        if self.watch is not None:
            validate = self.watch.beside(validate)
        result = fit(
            model,
            graph,
            objectives,
            settings,
            seed=self.seed,
            validate=validate,
            on_epoch=self.on_epoch,
        )
        if self.watch is not None:
            self.watch.finish(embed(model, graph), result.best_epoch)

    def _validation(self) -> Callable[[Embeddings], float] | None:
        graph, seen, valid = self.known.graph, self.known.seen, self.block.valid
        # A part of a block does not know everyone whom the block holds out.
        valid = valid[(valid.user < graph.num_users) & (valid.item < graph.num_items)]
        if self.config.valid_users:
            users = self.sample("valid", valid.user.unique(), self.config.valid_users)
            valid = valid[is_in(valid.user, users)]
        if len(valid) == 0:
            return None
        if self.config.mask == "block":
            train = [self.block.train]
            seen = UserItems.from_interactions(train, graph.num_users, graph.num_items)
        return Validation(valid, seen, k=min(20, graph.num_items))
