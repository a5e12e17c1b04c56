"""ReLoop2: fine-tuning whose scores are corrected by a memory of recent errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.known import Known
from ccdgraph.continual.scene import Scene
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.ranking import Scorer
from ccdgraph.sampling import draw_negatives
from ccdgraph.train import embed

_CHUNK = 4096  # items whose kernel is there at once
_LOWEST = 0.05  # products of two kernels stay above the smallest float32 down to here


@dataclass(frozen=True)
class ReLoop2Config(IncrementalConfig):
    r"""Settings of :class:`ReLoop2`.

    Args:
        memory: errors kept, at most; the oldest go first.
        share: how much of the expected error is made good, :math:`\gamma`.
        temperature: width of the kernel; towards 0 the nearest error alone counts.
    """

    memory: int = 4096
    share: float = 1.0
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.memory < 1 or self.temperature < _LOWEST:
            raise ValueError(
                f"'memory' is {self.memory} and 'temperature' {self.temperature}; "
                f"ReLoop2 keeps at least 1 error and a kernel of width {_LOWEST} or above"
            )


class ReLoop2(Incremental[ReLoop2Config]):
    r"""Fine-tuning, served with the errors that similar pairs have shown lately.

    .. math:: y_{ui} = \sigma(s_{ui}) + \gamma\, \frac{\sum_m k_{ui,m}\, e_m}{\sum_m k_{ui,m}},
        \qquad k_{ui,m} = \exp\!\big( (\cos(h_u, h_{u_m}) + \cos(h_i, h_{i_m})) / \tau \big)

    The memory holds the errors :math:`e = y - \sigma(s)` of the last pairs and of one sampled
    negative each, as the model made them when their block had just been learnt; its keys are the
    current embeddings. It is three flat tensors of fixed size. The kernel is a product over user
    and item, so all memories count in two matrix products.

    Zhu et al., *ReLoop2: Building Self-Adaptive Recommendation Models via Responsive Error
    Compensation Loop*, KDD 2023, https://arxiv.org/abs/2306.08808. Differs from the paper: all
    errors count by the kernel instead of the nearest found by hashing; pairs of embeddings are the
    keys; errors are written once a block is learnt instead of one by one.
    """

    def __init__(self, config: ReLoop2Config = ReLoop2Config(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def remember(self, scene: Scene, model: Backbone) -> None:
        """Write the errors on the block's pairs, and on one negative of each."""
        train, seen = scene.block.train, scene.known.seen
        out = embed(model, scene.known.graph)
        negative = draw_negatives(
            train.user, seen.num_items, 1, seen.keys(), generator=scene.rng("errors")
        )
        user = train.user.repeat_interleave(2)
        item = torch.stack([train.item, negative.squeeze(1)], dim=1).flatten()
        label = torch.tensor([1.0, 0.0], device=user.device).repeat(len(train))
        fresh = {"user": user, "item": item, "error": label - out.pairs(user, item).sigmoid()}
        self.memory = {
            name: torch.cat([self.memory.get(name, value[:0]), value])[-self.config.memory :]
            for name, value in fresh.items()
        }

    def scorer(self, model: Backbone, known: Known) -> Scorer:
        """The embeddings, corrected by the memory."""
        out, memory = embed(model, known.graph), self.memory
        return Corrected(
            out,
            memory["user"],
            memory["item"],
            memory["error"],
            share=self.config.share,
            temperature=self.config.temperature,
        )


class Corrected:
    """Scores of embeddings plus the error that similar pairs let one expect.

    Args:
        out: the embeddings.
        user: user of every error ``[M]``.
        item: item of every error ``[M]``.
        error: label minus predicted probability ``[M]``.
        share: share of the expected error that is added.
        temperature: width of the kernel.
    """

    def __init__(
        self,
        out: Embeddings,
        user: Tensor,
        item: Tensor,
        error: Tensor,
        *,
        share: float,
        temperature: float,
    ) -> None:
        self.out, self.error, self.share, self.temperature = out, error, share, temperature
        self.unit = Embeddings(functional.normalize(out.user), functional.normalize(out.item))
        self.user_key, self.item_key = self.unit.user[user], self.unit.item[item]

    @property
    def num_users(self) -> int:
        """Users it can score."""
        return self.out.num_users

    @property
    def num_items(self) -> int:
        """Items it scores."""
        return self.out.num_items

    @torch.no_grad()
    def scores(self, user: Tensor) -> Tensor:
        """Corrected probabilities of every item, ``[B] -> [B, I]``."""
        by_user = self._kernel(self.unit.user[user], self.user_key)
        expected = []
        for unit in self.unit.item.split(_CHUNK):
            by_item = self._kernel(unit, self.item_key).T
            expected.append((by_user * self.error) @ by_item / (by_user @ by_item))
        return self.out.scores(user).sigmoid() + self.share * torch.cat(expected, dim=1)

    def _kernel(self, unit: Tensor, key: Tensor) -> Tensor:
        """At most 1, at equal directions: ``[n, D], [M, D] -> [n, M]``."""
        return ((unit @ key.T - 1) / self.temperature).exp()
