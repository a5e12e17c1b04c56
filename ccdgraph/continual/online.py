"""Online distillation: a student learns each block from its rows and a teacher's stored labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ccdgraph import losses
from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.scene import Scene
from ccdgraph.data.stream import Block
from ccdgraph.distill.auxiliary import AuxiliaryHead
from ccdgraph.distill.labels.source import StoreReader
from ccdgraph.distill.stored import ListwiseKD, PointwiseKD
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.train import Part, Term, embed

# The teacher's scores and lists for a block, [U, K] each, as StoreReader gives them.
Labels = Callable[[Block], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class OnlineConfig(IncrementalConfig):
    """Settings of :class:`Online`, beside those that every baseline has.

    Args:
        labels: folder of a label store; ``None`` learns from the rows alone.
        teacher: its name in the store; ``None`` takes the only one there is.
        lag: blocks that the teacher is behind
            (:func:`~ccdgraph.distill.labels.source.teacher_before`).
        freeze: last block that the teacher learnt; ``None`` for one that goes with the stream.
        hard: loss of the rows, ``"bpr"`` or ``"bce"``; only the latter's scores are logits.
        soft: loss of the labels, :class:`~ccdgraph.distill.stored.ListwiseKD` or
            :class:`~ccdgraph.distill.stored.PointwiseKD`.
        into: impose the labels on the ``"served"`` scores, or on those of a head that is dropped
            (:class:`~ccdgraph.distill.auxiliary.AuxiliaryHead`).
        weight: of the soft loss.
        gradient_scale: of what the head sends into the embeddings.
        temperature: of the listwise loss.
        scale: of the pointwise loss.
        shift: of the pointwise loss.
        gain: of the pointwise loss.
    """

    labels: str | None = None
    teacher: str | None = None
    lag: int = 0
    freeze: int | None = None
    hard: Literal["bpr", "bce"] = "bpr"
    soft: Literal["listwise", "pointwise"] = "listwise"
    into: Literal["served", "auxiliary"] = "auxiliary"
    weight: float = 0.1
    gradient_scale: float = 1.0
    temperature: float = 1.0
    scale: float = 1.0
    shift: float = 0.0
    gain: float = 1.0


class Online(Incremental[OnlineConfig]):
    r"""A student of a teacher that labelled each block before it learnt it.

    .. math:: L = \ell_{hard}(D_k; s) + w\, \ell_{soft}(q_k; s \text{ or } s')

    over the same batches; a user without labels has no share in the second addend. The base block
    has no labels, as no teacher comes before it. The head of :math:`s'` goes on from block to block
    with the model. Khani et al., *Bridging the Gap: Unpacking the Hidden Challenges in Knowledge
    Distillation for Online Ranking Systems*, RecSys 2024, https://arxiv.org/abs/2408.14678. A sum
    over the batch.

    Args:
        config: all settings.
        seed: root of every generator.
        labels: where labels come from, instead of ``config.labels``.
    """

    def __init__(
        self, config: OnlineConfig = OnlineConfig(), *, seed: int = 0, labels: Labels | None = None
    ) -> None:
        super().__init__(config, seed=seed)
        self._labels = labels
        if labels is None and config.labels is not None:
            self._labels = StoreReader(config.labels, config.teacher, config.lag, config.freeze)
        self._head: AuxiliaryHead | None = None

    def hard(self) -> Term | None:
        """That of the model, BPR unless it says otherwise, or binary cross-entropy."""
        return HardBCE() if self.config.hard == "bce" else None

    def parts(self, scene: Scene, previous: Backbone) -> tuple[Part, ...]:
        """The soft loss, when anyone has labels."""
        if self._labels is None:
            return ()
        scores, lists = self._labels(scene.block)
        if lists.size(1) == 0:
            return ()
        term = self._soft(lists, scores)
        if self.config.into == "auxiliary":
            assert scene.known.before is not None, "labels are for blocks after the base"
            dim = embed(previous, scene.known.before).item.size(1)
            scale = self.config.gradient_scale
            self._head = AuxiliaryHead(term, dim, gradient_scale=scale).to(scene.device)
            if self.memory:
                self._head.load_state_dict(self.memory)
            term = self._head
        return (Part(term, None, self.config.weight),)

    def remember(self, scene: Scene, model: Backbone) -> None:
        """The head, from which the next block goes on."""
        if self._head is not None:
            self.memory = {k: v.detach().clone() for k, v in self._head.state_dict().items()}
            self._head = None

    def _soft(self, lists: Tensor, scores: Tensor) -> Term:
        config = self.config
        if config.soft == "listwise":
            return ListwiseKD(lists, scores, temperature=config.temperature)
        return PointwiseKD(lists, scores, scale=config.scale, shift=config.shift, gain=config.gain)


class HardBCE(Term):
    """:func:`ccdgraph.losses.soft_bce` on :class:`~ccdgraph.sampling.Triplets`: labels 1 and 0.

    Its scores are logits of the share of positives in a batch, which those of BPR are not.
    """

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the batch and its negatives."""
        positive = out.pairs(batch.user, batch.positive)
        negative = out.pairs(batch.user.unsqueeze(-1), batch.negative)
        ones, zeros = torch.ones_like(positive), torch.zeros_like(negative)
        return losses.soft_bce(positive, ones) + losses.soft_bce(negative, zeros)
