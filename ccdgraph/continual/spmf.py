"""SPMF: streaming ranking that draws the pairs it still ranks low, from block and reservoir."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.reservoir import fill, held
from ccdgraph.continual.scene import Scene
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import Backbone, Embeddings, MultVAE
from ccdgraph.sampling import Batches, TripletBatches, Triplets


@dataclass(frozen=True)
class SPMFConfig(IncrementalConfig):
    """Settings of :class:`SPMF`.

    Args:
        memory: pairs in the reservoir, at most.
        ratio: pairs drawn in an epoch, as a share of the rows of the block.
    """

    memory: int = 10_000
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.memory < 1 or self.ratio <= 0:
            raise ValueError(
                f"'memory' is {self.memory} and 'ratio' {self.ratio}; "
                "a reservoir keeps at least 1 pair and an epoch draws a positive share"
            )


class SPMF(Incremental[SPMFConfig]):
    r"""Learns pairs of block and reservoir, those it ranks low more often.

    .. math:: L = L_{BPR}(S), \quad S \sim (W \cup R)^{n}, \quad
        p(u, i) \propto \exp\!\big( \mathrm{rank}(u, i) / |W \cup R| \big)

    where the rank counts from 0 at the pair of :math:`W \cup R` that the current model scores
    highest, :math:`W` is the block, and :math:`R` a uniform reservoir of fixed size. Drawn with
    replacement at the start of every epoch; a sum over the batch. The time of an epoch depends on
    the block and the reservoir alone.

    Wang et al., *Streaming Ranking Based Recommender Systems*, SIGIR 2018. Differs from the paper:
    the window is the block, and any ranking backbone stands for the matrix factorisation.
    """

    def __init__(self, config: SPMFConfig = SPMFConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def batches(self, scene: Scene, rows: Interactions) -> Batches:
        """The ranked draws."""
        if isinstance(self.model, MultVAE):
            raise ValueError("'backbone' is variational and learns no pairs; SPMF needs a ranking")
        kept = held(self.memory)
        return RankedBatches(
            Interactions.cat([Interactions(rows.user, rows.item), kept]),
            max(1, round(self.config.ratio * len(rows))),
            scene.triplets(
                rows, batch_size=self.config.batch_size, negatives=self.config.negatives
            ),
        )

    def remember(self, scene: Scene, model: Backbone) -> None:
        """Let the block pass through the reservoir."""
        draws = scene.rng("reservoir")
        self.memory = fill(self.memory, scene.block.train, self.config.memory, generator=draws)


class RankedBatches:
    """Triplets of pairs drawn anew in every epoch, those with a low score more often.

    Args:
        pairs: what is drawn from, with replacement.
        num: pairs drawn in an epoch.
        triplets: how a draw is cut and given negatives; its own pairs are replaced.
    """

    def __init__(self, pairs: Interactions, num: int, triplets: TripletBatches) -> None:
        self.pairs, self.num, self.triplets = pairs, num, triplets

    def epoch(self, epoch: int, current: Callable[[], Embeddings]) -> Iterator[Triplets]:
        """The drawn pairs, in a random order and with new negatives."""
        user, item = self.pairs.user, self.pairs.item
        edge = chances(current().pairs(user, item)).cumsum(0)
        generator = self.triplets.generator
        draw = torch.rand(self.num, generator=generator, device=edge.device, dtype=edge.dtype)
        place = torch.searchsorted(edge, draw * edge[-1], right=True).clamp_(max=len(edge) - 1)
        self.triplets.interactions = self.pairs[place]
        return self.triplets.epoch(epoch, current)


def chances(score: Tensor) -> Tensor:
    """Probability of drawing each pair, float64 ``[n]``; equal scores rank in their order.

    >>> chances(torch.tensor([5.0, -5.0])).tolist()  # 1 : exp(1/2)
    [0.3775..., 0.6224...]
    """
    rank = torch.empty_like(score, dtype=torch.float64)
    order = score.argsort(descending=True, stable=True)
    rank[order] = torch.arange(len(score), device=score.device, dtype=torch.float64)
    return (rank / len(score)).softmax(0)
