"""What the baselines share: one model that is grown for each block and trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from ccdgraph.continual.config import BaseConfig, CCDConfig, Initialisation
from ccdgraph.continual.known import Known, arrive
from ccdgraph.continual.scene import Scene
from ccdgraph.continual.strategy import OneStage, load_model, under
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block
from ccdgraph.nn import Backbone, BackboneConfig, MultVAE
from ccdgraph.ranking import Scorer
from ccdgraph.sampling import Batches
from ccdgraph.train import FitConfig, Objective, Part, Term, embed, ranking


@dataclass(frozen=True)
class IncrementalConfig:
    """Settings that every baseline has; the same words mean the same in CCD.

    Args:
        backbone: the one model.
        base: training on the base block.
        graph: propagate over all edges so far (``"cumulative"``) or the block's own (``"block"``).
        decay: weight of older edges, as in :func:`ccdgraph.continual.known.arrive`.
        mask: items hidden in model selection, as in evaluation.
        init: how new entities start.
        topk: prominent entities of the two-hop mean.
        batch_size: interactions of a step, from block 1 on.
        negatives: negatives of an interaction, from block 1 on.
        fit: training settings from block 1 on.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(dim=8))
    base: BaseConfig = BaseConfig()
    graph: Literal["cumulative", "block"] = "cumulative"
    decay: float = 1.0
    mask: Literal["block", "strict"] = "strict"
    init: Initialisation = "two-hop"
    topk: int = 20
    batch_size: int = 2048
    negatives: int = 1
    fit: FitConfig = FitConfig(epochs=10, lr=1e-3, weight_decay=1e-4)


Config = TypeVar("Config", bound=IncrementalConfig)


class Incremental(OneStage, Generic[Config]):
    """One model, grown for every block and trained on it; strategies say what else counts.

    A subclass overrides some of :meth:`interactions`, :meth:`batches`, :meth:`hard`,
    :meth:`parts`, :meth:`learn`, :meth:`remember` and :meth:`scorer`, and nothing else. What it
    keeps from one block to the next are tensors in ``memory``, stored and taken up with the
    model. The base model is the same for all that override neither :meth:`hard`, :meth:`learn` nor
    :meth:`retrain`, so they share it; one that does and shares it still repeats ``BASE_NEEDS``.

    Losses are sums over a batch (:mod:`ccdgraph.losses`); a term that is a mean says so.

    Args:
        config: all settings.
        seed: root of every generator.
    """

    BASE_NEEDS = ("backbone", "base", "mask")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if {"hard", "learn", "retrain"} & vars(cls).keys():
            cls.BASE_NEEDS = vars(cls).get("BASE_NEEDS", ())

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.model: Backbone | None = None
        self._base: Backbone | None = None
        self.known: Known | None = None
        self.memory: dict[str, Tensor] = {}

    def interactions(self, scene: Scene) -> Interactions:
        """What the model learns from at a block after the base; by default its training rows."""
        return scene.block.train

    def batches(self, scene: Scene, rows: Interactions) -> Batches:
        """Triplets that a ranking model learns ``rows`` from, at a block after the base."""
        config = self.config
        return scene.triplets(rows, batch_size=config.batch_size, negatives=config.negatives)

    def hard(self) -> Term | None:
        """Loss of the triplets of a ranking model; ``None`` for that of its kind, the default."""
        return None

    def parts(self, scene: Scene, previous: Backbone) -> Sequence[Part]:
        """Terms beside the loss of the interactions; by default none.

        A part without ``batches`` reads the triplets of :meth:`batches`.

        Args:
            scene: where; ``scene.known.before`` is the graph that ``previous`` learnt on.
            previous: the model as it was before the block, not grown.
        """
        return ()

    def learn(self, scene: Scene) -> Backbone:
        """The model after the block; by default a fresh one on the base block, then grown ones."""
        if self.model is None:
            return self.retrain(scene, scene.block.train) if self._base is None else self._base
        model = scene.grow(self.model, self.config.init, self.config.topk)
        rows, size = self.interactions(scene), self.config.batch_size
        batches, parts = self.batches(scene, rows), self.parts(scene, self.model)
        whole = objective(scene, model, rows, batches, parts, size, hard=self.hard())
        scene.fit(model, [whole], self.config.fit)
        return model

    def remember(self, scene: Scene, model: Backbone) -> None:
        """Update ``memory`` once the block is learnt; by default there is nothing to keep."""

    def scorer(self, model: Backbone, known: Known) -> Scorer:
        """What is served; by default the embeddings of the model."""
        return embed(model, known.graph)

    def retrain(self, scene: Scene, rows: Interactions) -> Backbone:
        """A fresh model trained on ``rows`` with the settings of the base block."""
        base = self.config.base
        model = scene.build(self.config.backbone)
        batches = scene.triplets(rows, batch_size=base.batch_size, negatives=base.negatives)
        whole = objective(scene, model, rows, batches, (), base.batch_size, hard=self.hard())
        scene.fit(model, [whole], base.fit)
        return model

    def serve(self, block: Block) -> Scorer:
        """Learn ``block``, and keep what the next one needs."""
        known = self._arrive(self.known, block)
        scene = self._scene(block, known)
        model = self.learn(scene)
        self.remember(scene, model)
        self.model, self.known, self._base = model, known, None
        return self.scorer(model, known)

    def state(self) -> dict[str, Tensor]:
        """The model, the memory, and the last block that was learnt."""
        tensors = {"cursor": torch.tensor([self.index])}
        tensors |= {f"memory/{name}": value for name, value in self.memory.items()}
        if self.model is not None:
            tensors["sizes"] = torch.tensor([self.model.num_users, self.model.num_items])
            tensors |= {f"model/{name}": value for name, value in self.model.state_dict().items()}
        return tensors

    @property
    def has_base(self) -> bool:
        """Whether the base block was the last to be learnt."""
        return bool(self.BASE_NEEDS) and self.index == 0

    def take_base(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Have the model that :meth:`learn` makes of the base block."""
        self._base = self._load(state, blocks[0].train.user.device)

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Take up :meth:`state`; ``blocks`` run up to the last that was learnt, or further."""
        self.index = int(state["cursor"][0])
        self.known, self.model, self.served = None, None, None
        for block in blocks[: self.index + 1]:
            self.known = self._arrive(self.known, block)
        if self.known is None:
            return
        device = self.known.graph.device
        self.memory = {k: v.to(device) for k, v in under("memory/", state).items()}
        self.model = self._load(state, device)
        self.served = self.scorer(self.model, self.known)

    def _load(self, state: Mapping[str, Tensor], device: torch.device) -> Backbone:
        values = {"sizes": state["sizes"], **under("model/", state)}
        return load_model(self.config.backbone, {k: v.to(device) for k, v in values.items()})

    def _arrive(self, known: Known | None, block: Block) -> Known:
        cumulative = self.config.graph == "cumulative"
        return arrive(known, block, cumulative=cumulative, decay=self.config.decay)

    def _scene(self, block: Block, known: Known) -> Scene:
        report, label = self.on_progress, f"block {block.index} model"
        # A scene reads nothing but the mask of its configuration.
        return Scene(
            block,
            known,
            CCDConfig(mask=self.config.mask),
            (self.seed, block.index, "model"),
            None if report is None else lambda done, total, _: report(label, done, total),
        )


def objective(
    scene: Scene,
    model: Backbone,
    rows: Interactions,
    triplets: Batches,
    parts: Sequence[Part],
    batch_size: int,
    *,
    hard: Term | None = None,
) -> Objective:
    """The loss of the interactions in the way of the model's kind, and further parts.

    Args:
        scene: where.
        model: what is trained; a variational model reconstructs ``rows`` instead of ranking.
        rows: the interactions.
        triplets: the same with negatives, for ranking and for parts without batches.
        parts: what else counts.
        batch_size: users of a step of a variational model.
        hard: loss of the triplets; that of the model by default.
    """
    if not isinstance(model, MultVAE):
        return Objective((Part(hard or ranking(model), triplets), *parts))
    own = scene.reconstruction(model, scene.among_known(rows), batch_size=batch_size)
    return Objective(
        (own, *(p if p.batches is not None else replace(p, batches=triplets) for p in parts))
    )
