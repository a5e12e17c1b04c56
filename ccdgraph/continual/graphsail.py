"""GraphSAIL: fine-tuning that keeps each entity, its neighbourhood and its place among clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.kmeans import kmeans
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.continual.scene import Scene
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import UserItems
from ccdgraph.data.sparse import RowMean
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.nn.backbone import rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Part, Term, embed


@dataclass(frozen=True)
class GraphSAILConfig(IncrementalConfig):
    """Settings of :class:`GraphSAIL`.

    Args:
        weight_self: weight of :class:`SelfInformation`, a sum over the batch.
        weight_local: weight of :class:`LocalStructure`, a mean over the batch.
        weight_global: weight of :class:`GlobalStructure`, a mean over the batch.
        num_clusters: clusters of users and clusters of items.
        temperature: temperature of the distribution over clusters.
        personal: weight users by how far their interests have moved (PIW).
        interests: item clusters of PIW.
    """

    weight_self: float = 10.0
    weight_local: float = 1e3
    weight_global: float = 100.0
    num_clusters: int = 50
    temperature: float = 1.0
    personal: bool = False
    interests: int = 10


class GraphSAIL(Incremental[GraphSAILConfig]):
    r"""Fine-tuning with three terms that hold on to the model before the block.

    .. math:: L = L_{BPR}(D_t) + \lambda_s L_{self} + \lambda_l L_{local} + \lambda_g L_{global}

    Xu et al., *GraphSAIL: Graph Structure Aware Incremental Learning for Recommender Systems*, CIKM
    2020, https://arxiv.org/abs/2008.13517. With ``personal`` the loss of every user is weighted by
    :class:`ccdgraph.continual.piw.PIW` (Wang et al., AAAI 2023, https://arxiv.org/abs/2305.01204).
    Differs from the released code: the anchor form of the local term, over all old neighbours. Its
    weights (100, 1e4, 1e4) belong to other sums and leave nothing to learn on a planted stream, so
    the defaults are lower.
    """

    def __init__(self, config: GraphSAILConfig = GraphSAILConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def parts(self, scene: Scene, previous: Backbone) -> Sequence[Part]:
        """The three terms, and the clusters of PIW when the weights are personal."""
        before, config = scene.known.before, self.config
        assert before is not None, "the base block has no past"
        old = embed(previous, before)
        weight = None
        if config.personal:
            weight = PIW(old, num_clusters=config.interests, generator=scene.rng("piw", "cpu"))
        train = [scene.block.train]
        now = UserItems.from_interactions(train, scene.block.num_users, scene.block.num_items)
        terms = [
            (SelfInformation(old, before, now, weight), config.weight_self),
            (LocalStructure(old, before, weight), config.weight_local),
            (
                GlobalStructure(
                    old,
                    config.num_clusters,
                    weight,
                    temperature=config.temperature,
                    generator=scene.rng("clusters", "cpu"),
                ),
                config.weight_global,
            ),
        ]
        parts = [Part(term, None, share) for term, share in terms if share > 0]
        if weight is not None and parts:
            parts.append(Part(ClusterLoss(weight, torch.unique(scene.block.train.item)), None))
        return parts


class SelfInformation(Term):
    r"""Keeps an entity's embedding, the more so the less of it is new.

    .. math:: L_{self} = \sum_{n \in B} \eta_n \lVert h_n - h_n^{old} \rVert^2, \qquad
        \eta_n \propto |N_n^{t-1}| / |N_n^t|, \quad \textstyle\sum_n \eta_n^2 = 1

    over the users and positives of the batch, a sum; users and items are normalised each among
    their kind. New entities, and those that the block does not hold, have :math:`\eta = 0`.

    Args:
        old: embeddings of the model before the block.
        before: its graph.
        now: items of every user in the block.
        weight: personal weights, or ``None``.
    """

    def __init__(
        self, old: Embeddings, before: BipartiteGraph, now: UserItems, weight: PIW | None = None
    ) -> None:
        super().__init__()
        self.old, self.weight = old.detach(), weight
        item = torch.bincount(now.item, minlength=now.num_items)
        self.eta_user = _imitation(before.user_items.degree, now.degree)
        self.eta_item = _imitation(before.item_users.degree, item)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the users and positives of the batch that the old model knows."""
        user, old_user = _known(batch.user, self.old.num_users)
        item, old_item = _known(batch.positive, self.old.num_items)
        by_user = (rows(out.user, user) - self.old.user[user]).square().sum(1)
        by_item = (rows(out.item, item) - self.old.item[item]).square().sum(1)
        by_user = self.eta_user[user] * by_user * _personal(self.weight, out, user, old_user)
        return by_user.sum() + (self.eta_item[item] * by_item * old_item).sum()


class LocalStructure(Term):
    r"""Keeps how well an entity fits its old neighbourhood.

    .. math:: L_{local} = \frac1{|B|} \sum_{u \in B} \big( \langle h_u, \bar h_{N_u} \rangle -
        \langle h_u^{old}, \bar h^{old}_{N_u} \rangle \big)^2 + \text{the same of items}

    with the mean :math:`\bar h_{N_u}` over the neighbours in the old graph. A mean over the rows of
    the batch that the old model knows.

    Args:
        old: embeddings of the model before the block.
        before: its graph.
        weight: personal weights, or ``None``.
    """

    def __init__(self, old: Embeddings, before: BipartiteGraph, weight: PIW | None = None) -> None:
        super().__init__()
        self.old, self.weight = old.detach(), weight
        self.of_user, self.of_item = RowMean(before.user_items), RowMean(before.item_users)
        self.fit_user = (self.old.user * self.of_user(self.old.item)).sum(1)
        self.fit_item = (self.old.item * self.of_item(self.old.user)).sum(1)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Mean over the users and mean over the positives that the old model knows."""
        user, old_user = _known(batch.user, self.old.num_users)
        item, old_item = _known(batch.positive, self.old.num_items)
        near_user = rows(self.of_user(out.item[: self.old.num_items]), user)
        near_item = rows(self.of_item(out.user[: self.old.num_users]), item)
        by_user = (rows(out.user, user) * near_user).sum(1) - self.fit_user[user]
        by_item = (rows(out.item, item) * near_item).sum(1) - self.fit_item[item]
        by_user = by_user.square() * _personal(self.weight, out, user, old_user)
        return _mean(by_user, old_user) + _mean(by_item.square() * old_item, old_item)


class GlobalStructure(Term):
    r"""Keeps an entity's place among the clusters of users and those of items.

    .. math:: L_{global} = \frac1{|B|} \sum_{n \in B} \sum_{A \in \{U, I\}} \mathrm{KL}\big(
        \mathrm{softmax}_k(\langle h_n, a_k \rangle / \tau) \,\big\Vert\,
        \mathrm{softmax}_k(\langle h_n^{old}, a_k^{old} \rangle / \tau) \big)

    The clusters are found in the old embeddings and stay; :math:`a_k` is the mean of their current
    members. A mean over the users plus one over the positives that the old model knows.

    Args:
        old: embeddings of the model before the block.
        num_clusters: clusters of each kind.
        weight: personal weights, or ``None``.
        temperature: :math:`\tau`.
        generator: source of the first centres.
    """

    def __init__(
        self,
        old: Embeddings,
        num_clusters: int,
        weight: PIW | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.old, self.weight, self.temperature = old.detach(), weight, temperature
        self.of_user, self.of_item = (
            _members(kmeans(table, num_clusters, generator=generator)[1])
            for table in (self.old.user, self.old.item)
        )
        self.anchors = self._anchors(self.old)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Mean over the users and mean over the positives that the old model knows."""
        user, old_user = _known(batch.user, self.old.num_users)
        item, old_item = _known(batch.positive, self.old.num_items)
        anchors = self._anchors(out)
        by_user = self._divergence(rows(out.user, user), self.old.user[user], anchors)
        by_item = self._divergence(rows(out.item, item), self.old.item[item], anchors)
        by_user = by_user * _personal(self.weight, out, user, old_user)
        return _mean(by_user, old_user) + _mean(by_item * old_item, old_item)

    def _anchors(self, out: Embeddings) -> Embeddings:
        user, item = out.user[: self.old.num_users], out.item[: self.old.num_items]
        return Embeddings(self.of_user(user), self.of_item(item))

    def _divergence(self, new: Tensor, old: Tensor, anchors: Embeddings) -> Tensor:
        total, then = new.new_zeros(len(new)), self.anchors
        for now, before in ((anchors.user, then.user), (anchors.item, then.item)):
            own = (new @ now.T / self.temperature).log_softmax(1)
            aim = (old @ before.T / self.temperature).log_softmax(1)
            total = total + functional.kl_div(aim, own, reduction="none", log_target=True).sum(1)
        return total


def _imitation(before: Tensor, now: Tensor) -> Tensor:
    """How much each old entity is to be kept, ``[n]``; the squares sum to 1."""
    now = now[: len(before)]
    ratio = torch.where(now > 0, before / now.clamp(min=1), 0.0)
    share: Tensor = ratio / ratio.norm().clamp(min=1e-30)  # all 0 where the block has no old one
    return share


def _known(index: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Ids that the old model can be asked for, and which of them it knows, ``[B]`` each."""
    return index.clamp(max=num - 1), index < num


def _personal(weight: PIW | None, out: Embeddings, user: Tensor, known: Tensor) -> Tensor:
    """Weight of every user's loss ``[B]``: 0 for a new one."""
    if weight is None:
        return known
    return torch.mul(known, weight(out, user, known))


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    return loss.sum() / known.sum().clamp(min=1)


def _members(cluster: Tensor) -> RowMean:
    """Mean over the members of each cluster that has any."""
    order = torch.argsort(cluster, stable=True)
    count = torch.bincount(cluster)
    count = count[count > 0]
    return RowMean(UserItems(torch.cat([count.new_zeros(1), count.cumsum(0)]), order, len(cluster)))
