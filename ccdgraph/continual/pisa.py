"""PISA: keeps users who stay near their past and lets those who move follow a plastic model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph.continual.incremental import Incremental, IncrementalConfig, objective
from ccdgraph.continual.kmeans import kmeans
from ccdgraph.continual.scene import Scene
from ccdgraph.data.interactions import UserItems
from ccdgraph.data.sparse import RowMean
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.nn.backbone import rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Part, Term, embed


@dataclass(frozen=True)
class PISAConfig(IncrementalConfig):
    """Settings of :class:`PISA`.

    Args:
        weight: weight of the four alignments together, ``a``.
        num_clusters: item clusters ``K`` that a user's interests are spread over.
        temperature: temperature of the alignments.
        share: share of the users of a batch that count on each side, the most extreme ones.
    """

    weight: float = 0.5
    num_clusters: int = 20
    temperature: float = 0.5
    share: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.num_clusters < 1:
            raise ValueError(
                f"'share' is {self.share} and 'num_clusters' {self.num_clusters}; "
                "a share lies in (0, 1] and there is at least 1 cluster"
            )


class PISA(Incremental[PISAConfig]):
    r"""Two passes over a block: a plastic model, then one between it and the past.

    The first pass fine-tunes and gives the plastic embeddings :math:`h^f`. The second starts again
    from the last model :math:`h^{old}` and adds :class:`Alignment` to both:

    .. math:: L = L_{BPR}(D_t) + a \big[ I(h_u^f, h_u \mid w) + I(\bar h_{N_u^t}^f, h_u \mid w) +
        I(h_u^{old}, h_u \mid 1 - w) + I(\bar h_{N_u^{t-1}}^{old}, h_u \mid 1 - w) \big]

    Yoo et al., *Embracing Plasticity: Balancing Stability and Plasticity in Continual Recommender
    Systems*, SIGIR 2025, https://openreview.net/forum?id=VAQ61u5I9q. It costs two fine-tunings.
    Differs from the released code: negatives avoid what a user has had so far and not what comes
    later; of neighbours the mean is aligned; a user without neighbours on a side has no alignment
    with them.
    """

    BASE_NEEDS = Incremental.BASE_NEEDS  # two passes follow, after the base block alone

    def __init__(self, config: PISAConfig = PISAConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self._plastic: Embeddings | None = None

    def learn(self, scene: Scene) -> Backbone:
        """The model of the second pass; the base block has one pass."""
        if self.model is None:
            return super().learn(scene)
        plastic = scene.grow(self.model, self.config.init, self.config.topk)
        triplets, size = self.batches(scene, scene.block.train), self.config.batch_size
        first = objective(scene, plastic, scene.block.train, triplets, (), size)
        scene.fit(plastic, [first], self.config.fit)
        self._plastic = embed(plastic, scene.known.graph)
        return super().learn(scene)

    def parts(self, scene: Scene, previous: Backbone) -> Sequence[Part]:
        """The alignments with the plastic model and the last one."""
        before, config, block = scene.known.before, self.config, scene.block
        assert before is not None and self._plastic is not None, "the first pass comes before"
        now = UserItems.from_interactions([block.train], block.num_users, block.num_items)
        term = Alignment(
            self._plastic,
            embed(previous, before),
            now,
            before.user_items,
            num_clusters=config.num_clusters,
            temperature=config.temperature,
            share=config.share,
            generator=scene.rng("centres", "cpu"),
        )
        return [Part(term, None, config.weight)]


class Alignment(Term):
    r"""Draws users who have moved to the plastic model, and the others to their past.

    .. math:: I(x, z \mid w) = -\frac{|B|}{|U_B|} \sum_{u \in U_B} w_u \log
        \frac{e^{\cos(x_u, z_u) / \tau}}{\sum_{v \in U_B} e^{\cos(x_u, z_v) / \tau}}, \qquad
        w_u = \sigma\big( \mathrm{JSD}(G_u^{old}, G_u) - \text{mean over } U_B \big)

    with :math:`G_u = \mathrm{softmax}_k(\langle c_k, h_u \rangle)` over the centres of the items,
    clustered anew in every epoch. Of :math:`w`, and of :math:`1 - w`, the largest ``share`` counts
    and the rest is 0. :math:`U_B` are the users of the batch, each once, and the factor ``|B|``
    makes their mean as large as a sum over the batch's interactions. Weights and centres are
    constants. A user whom the old model does not know has :math:`w = 1/2` and no past.

    Args:
        plastic: embeddings after fine-tuning.
        old: embeddings of the model before the block.
        now: items of every user in the block.
        then: items of every user in the old graph.
        num_clusters: centres ``K``.
        temperature: :math:`\tau`.
        share: share of the users that count on each side.
        generator: source of the first centres, on the CPU.
    """

    def __init__(
        self,
        plastic: Embeddings,
        old: Embeddings,
        now: UserItems,
        then: UserItems,
        *,
        num_clusters: int = 20,
        temperature: float = 0.5,
        share: float = 0.6,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.old, self.temperature, self.share = old.detach(), temperature, share
        self.num_clusters, self.generator = num_clusters, generator
        plastic = plastic.detach()
        self.plastic_user, self.plastic_near = plastic.user, RowMean(now)(plastic.item)
        self.old_near = RowMean(then)(self.old.item)
        self.has_now, self.has_then = now.degree > 0, then.degree > 0
        self.centre: Tensor | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Forget the centres; the next batch finds new ones."""
        self.centre = None

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum of the four alignments, on the scale of a sum over the batch."""
        user = batch.user.sort().values
        counts = torch.ones_like(user, dtype=torch.bool)
        counts[1:] = user[1:] != user[:-1]
        current, weight = rows(out.user, user), self.weights(out, user, counts)
        moved = largest(weight, self.share, counts)
        stayed = largest(1 - weight, self.share, counts) * (user < self.old.num_users)
        old = user.clamp(max=self.old.num_users - 1)
        sides = (
            (self.plastic_user[user], moved),
            (self.plastic_near[user], moved * self.has_now[user]),
            (self.old.user[old], stayed),
            (self.old_near[old], stayed * self.has_then[old]),
        )
        total = out.user.new_zeros(())
        for anchor, share in sides:
            total = total + alignment(anchor, current, share, counts, temperature=self.temperature)
        return total * len(user) / counts.sum()

    @torch.no_grad()
    def weights(self, out: Embeddings, user: Tensor, counts: Tensor) -> Tensor:
        """How far each user has moved against the others, in (0, 1), ``[B] -> [B]``.

        Args:
            out: current embeddings.
            user: user ids ``[B]``.
            counts: which of them the mean is over; it leaves out new users as well ``[B]``.
        """
        if self.centre is None:
            self.centre = kmeans(out.item, self.num_clusters, generator=self.generator)[0]
        known, old = user < self.old.num_users, user.clamp(max=self.old.num_users - 1)
        shift = divergence(
            (self.old.user[old] @ self.centre.T).log_softmax(1),
            (out.user[user] @ self.centre.T).log_softmax(1),
        )
        mean = (shift * (known & counts)).sum() / (known & counts).sum().clamp(min=1)
        return torch.where(known, (shift - mean).sigmoid(), 0.5)


def alignment(
    anchor: Tensor,
    current: Tensor,
    weight: Tensor,
    counts: Tensor,
    *,
    temperature: float = 0.5,
) -> Tensor:
    """Weighted sum of the contrastive losses of :class:`Alignment`, without its factor.

    Args:
        anchor: frozen embeddings of the users of the batch ``[B, D]``.
        current: their current embeddings ``[B, D]``.
        weight: weight of each user ``[B]``.
        counts: users that others are told from: each one once ``[B]``.
        temperature: temperature of the cosines.

    >>> one, both = torch.eye(2), torch.tensor([True, True])
    >>> float(alignment(one, one, torch.tensor([1.0, 0.0]), both, temperature=1.0))  # log(1 + 1/e)
    0.3132...
    """
    unit = functional.normalize(anchor)
    cosine = unit @ functional.normalize(current).T / temperature
    partition = cosine.masked_fill(~counts, float("-inf")).logsumexp(1)
    return (weight * (partition - cosine.diagonal())).sum()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of rows of log-probabilities, ``[n, K], [n, K] -> [n]``."""
    middle = torch.logaddexp(first, second) - math.log(2)
    sides = [(side.exp() * (side - middle)).sum(1) for side in (first, second)]
    total: Tensor = sum(sides, torch.zeros_like(sides[0])) / 2
    return total


def largest(weight: Tensor, share: float, counts: Tensor) -> Tensor:
    """``weight`` with all but its largest ``share`` set to 0; the earlier of a tie stays.

    Args:
        weight: ``[B]``.
        share: of those that count, rounded up.
        counts: which entries count ``[B]``; the others are set to 0.

    >>> largest(torch.tensor([0.1, 0.4, 0.3]), 0.5, torch.tensor([True] * 3)).tolist()
    [0.0, 0.4..., 0.3...]
    """
    order = weight.masked_fill(~counts, float("-inf")).argsort(descending=True, stable=True)
    rank = order.argsort()
    return weight * (counts & (rank < (share * counts.sum().double()).ceil()))
