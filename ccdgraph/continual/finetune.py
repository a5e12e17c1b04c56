"""Fine-tuning: the model goes on from where it was, on the new block alone."""

from __future__ import annotations

from dataclasses import dataclass

from ccdgraph.continual.incremental import Incremental, IncrementalConfig


@dataclass(frozen=True)
class FineTuneConfig(IncrementalConfig):
    """Settings of :class:`FineTune`: those that every baseline has."""


class FineTune(Incremental[FineTuneConfig]):
    r"""Learns each block from the last weights and nothing else.

    .. math:: \theta_t = \arg\min_\theta L_{BPR}(D_t; \theta) \quad\text{from } \theta_{t-1}

    A sum over the batch. No memory and no regulariser: what the others are measured against. A
    variational model reconstructs the block's rows instead.
    """

    def __init__(self, config: FineTuneConfig = FineTuneConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
