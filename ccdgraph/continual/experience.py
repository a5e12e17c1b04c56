"""Experience replay: a block is learnt together with pairs drawn from a reservoir of the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.reservoir import fill, held
from ccdgraph.continual.scene import Scene
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import Backbone


@dataclass(frozen=True)
class ExperienceReplayConfig(IncrementalConfig):
    """Settings of :class:`ExperienceReplay`.

    Args:
        memory: pairs kept, at most.
        ratio: pairs drawn for a block, as a share of its rows.
        draw: every kept pair alike (``"uniform"``), or in inverse proportion to the number of items
            its user has (``"inverse-degree"``).
    """

    memory: int = 10_000
    ratio: float = 0.2
    draw: Literal["uniform", "inverse-degree"] = "uniform"

    def __post_init__(self) -> None:
        if self.memory < 1 or self.ratio < 0:
            raise ValueError(
                f"'memory' is {self.memory} and 'ratio' {self.ratio}; "
                "a replay keeps at least 1 pair and draws no negative share"
            )


class ExperienceReplay(Incremental[ExperienceReplayConfig]):
    r"""Learns each block together with old pairs, drawn with replacement before training.

    .. math:: L = L_{BPR}(D_t \cup S_t), \quad |S_t| = \rho\,|D_t|, \quad
        p_{uniform}(u, i) \propto 1, \quad p_{inverse}(u, i) \propto 1 / |N_u^{t-1}|

    A sum over the batch; the pairs of :math:`S_t` come from a uniform reservoir of fixed size
    (:func:`ccdgraph.continual.reservoir.fill`), so neither memory nor the time of a step grows with
    the blocks. Ahrabian et al., *Structure Aware Experience Replay for Incremental Learning in
    Graph-based Recommender Systems*, CIKM 2021. Differs from the released code: it draws from all
    past edges, here from the reservoir.
    """

    def __init__(
        self, config: ExperienceReplayConfig = ExperienceReplayConfig(), *, seed: int = 0
    ) -> None:
        super().__init__(config, seed=seed)

    def interactions(self, scene: Scene) -> Interactions:
        """The block's rows, then the replayed ones."""
        train, kept = scene.block.train, held(self.memory)
        weight = torch.ones(len(kept), device=kept.user.device)
        if self.config.draw == "inverse-degree":
            assert self.known is not None, "the base block is replayed by nobody"
            weight = inverse_degree(self.known.seen.degree, kept.user)
        num = round(self.config.ratio * len(train))
        if num == 0 or len(kept) == 0:
            return train
        # The cumulative sum has no limit on the number of pairs, as multinomial has.
        edge = weight.double().cumsum(0)
        draw = torch.rand(
            num, generator=scene.rng("replay"), device=edge.device, dtype=torch.float64
        )
        place = torch.searchsorted(edge, draw * edge[-1], right=True).clamp_(max=len(edge) - 1)
        return Interactions.cat([Interactions(train.user, train.item), kept[place]])

    def remember(self, scene: Scene, model: Backbone) -> None:
        """Let the block pass through the reservoir."""
        generator = scene.rng("reservoir")
        self.memory = fill(self.memory, scene.block.train, self.config.memory, generator=generator)


def inverse_degree(degree: Tensor, user: Tensor) -> Tensor:
    """One over the number of items of the user of each pair, ``[U], [n] -> [n]``.

    >>> inverse_degree(torch.tensor([1, 4]), torch.tensor([1, 0])).tolist()
    [0.25, 1.0]
    """
    return degree[user].clamp(min=1).float().reciprocal()
