"""Full batch: trained on everything so far whenever a block arrives, the ceiling to name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.scene import Scene
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import Backbone


@dataclass(frozen=True)
class FullBatchConfig(IncrementalConfig):
    """Settings of :class:`FullBatch`.

    Args:
        start: ``"fresh"`` trains from nothing with the settings of the base block, ``"warm"`` goes
            on from the last weights with those of a later block.
    """

    start: Literal["fresh", "warm"] = "fresh"


class FullBatch(Incremental[FullBatchConfig]):
    r"""Learns the union of all blocks whenever one arrives.

    .. math:: \theta_t = \arg\min_\theta L_{BPR}(D_0 \cup \dots \cup D_t; \theta)

    A sum over the batch. It costs more with every block and needs all data for ever; it is the
    reference, not always the upper bound. Of a pair that repeats, one counts. Model selection is
    that of the others: on the validation rows of the last block.
    """

    def __init__(self, config: FullBatchConfig = FullBatchConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def interactions(self, scene: Scene) -> Interactions:
        """Every pair so far."""
        return Interactions(scene.known.history.user, scene.known.history.item)

    def learn(self, scene: Scene) -> Backbone:
        """The model trained on every pair so far, from nothing or from its last weights."""
        if self.config.start == "warm" and self.model is not None:
            return super().learn(scene)
        return self.retrain(scene, self.interactions(scene))
