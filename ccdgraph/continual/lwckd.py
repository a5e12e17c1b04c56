"""LWC-KD and PIW: layer-wise contrastive distillation from a model's own past, weighted by user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccdgraph.data.graph import BipartiteGraph, RowMean
from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term


class LWCKD(Term):
    r"""Keep each entity's old embedding close to its old neighbours, at every layer.

    With a frozen anchor :math:`a` of the old model, current embeddings :math:`h` and the old
    neighbours :math:`M_a`,

    .. math:: C(a) = \log \sum_{c} e^{\langle a, h_c \rangle / T}
        - \frac{1}{|M_a|} \sum_{c \in M_a} \langle a, h_c \rangle / T

    summed over user-item, item-user, user-user and item-item neighbours, meaned over the anchors of
    the batch and over the layers. The two terms with user anchors are weighted by :class:`PIW`.

    Wang et al., *Graph Structure Aware Contrastive Knowledge Distillation*, CIKM 2021. Differs from
    the code released with CCD: all layers count, the deepest too; anchors are indexed by entity;
    the personal weights act.

    Args:
        old: embeddings of the model before the block, with ``layers``.
        neighbours: old neighbours of every kind.
        weight: personal weights, or ``None`` to count every user alike.
        temperature: ``T``.
    """

    def __init__(
        self,
        old: Embeddings,
        neighbours: Neighbours,
        *,
        weight: PIW | None = None,
        temperature: float = 5.0,
    ) -> None:
        super().__init__()
        self.old, self.weight, self.temperature = old.detach(), weight, temperature
        self.num_users, self.num_items = old.num_users, old.num_items
        self.neighbours = neighbours

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Mean over the anchors of the batch that the old graph knows."""
        user = batch.user[batch.user < self.num_users]
        item = batch.positive[batch.positive < self.num_items]
        weight = None if self.weight is None else self.weight(out, user)
        near, loss = self.neighbours, out.user.new_zeros(())
        for old, new in zip(self.old.layers, out.layers, strict=True):
            old_user, old_item = (old / self.temperature).split([self.num_users, self.num_items])
            new_user, new_item = new.split([out.num_users, out.num_items])
            new_user, new_item = new_user[: self.num_users], new_item[: self.num_items]
            by_user, by_item = old_user[user], old_item[item]
            loss = loss + _contrast(near.user_item, by_user, user, new_item, weight)
            loss = loss + _contrast(near.user_user, by_user, user, new_user, weight)
            loss = loss + _contrast(near.item_user, by_item, item, new_user, None)
            loss = loss + _contrast(near.item_item, by_item, item, new_item, None)
        return loss / len(self.old.layers)


@dataclass(frozen=True)
class Neighbours:
    """Old neighbours: of users among items, of items among users, and within each kind."""

    user_item: RowMean
    item_user: RowMean
    user_user: RowMean
    item_item: RowMean

    @classmethod
    def of(cls, graph: BipartiteGraph, *, mean_degree: float = 10.0) -> Neighbours:
        """Edges of ``graph``, and :func:`similar` entities on each of its sides."""
        users, items = graph.user_items, graph.item_users
        return cls(
            RowMean(users),
            RowMean(items),
            RowMean(similar(users, mean_degree=mean_degree)),
            RowMean(similar(items, mean_degree=mean_degree)),
        )


def _contrast(
    neighbours: RowMean, anchor: Tensor, index: Tensor, entities: Tensor, weight: Tensor | None
) -> Tensor:
    """Mean of ``C`` over the anchors ``[B, D]`` of entities ``index`` ``[B]`` with a neighbour."""
    known = neighbours.lists.degree[index] > 0
    positive = (anchor * rows(neighbours(entities), index)).sum(-1)
    loss = _LogPartition.apply(anchor, entities) - positive  # type: ignore[no-untyped-call]
    if weight is not None:
        loss = loss * weight
    total: Tensor = loss.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)
    return total


class PIW(nn.Module):
    r"""Personal weights of the distillation, from how far a user's interests have moved.

    .. math:: G_u = \mathrm{softmax}_k(c_k^\top W_k h_u), \quad s_u = (G_u^{old} - G_u)^2, \quad
        w_u = \mathrm{softplus}(\mathrm{MLP}(s_u))

    rescaled to mean 1 over the batch. The centres :math:`c_k` of the item clusters are learnt by
    :class:`ClusterLoss`. Wang et al., *Structure Aware Incremental Learning with Personalized
    Imitation Weights*, AAAI 2023, https://arxiv.org/abs/2305.01204.

    Args:
        old: embeddings of the model before the block.
        num_clusters: centres ``K``.
        hidden: width of the network's hidden layer.
        generator: source of centres and initial weights.
    """

    def __init__(
        self,
        old: Embeddings,
        *,
        num_clusters: int = 10,
        hidden: int = 50,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        device, dim = old.item.device, old.item.shape[1]
        chosen = torch.randperm(old.num_items, generator=generator)[:num_clusters].to(device)
        self.old = old.user.detach()
        self.centre = nn.Parameter(old.item.detach()[chosen].clone())
        num_clusters = len(chosen)

        def draw(*shape: int, fan_in: int) -> nn.Parameter:
            values = torch.randn(*shape, generator=generator) / fan_in**0.5
            return nn.Parameter(values.to(device))

        self.bilinear = draw(num_clusters, dim, dim, fan_in=dim)
        self.first = draw(num_clusters, hidden, fan_in=num_clusters)
        self.last = draw(hidden, 1, fan_in=hidden)
        self.bias = nn.Parameter(torch.zeros(hidden, device=device))

    def interests(self, user: Tensor) -> Tensor:
        """Soft assignment of user embeddings to the centres, ``[B, D] -> [B, K]``."""
        direction = torch.einsum("kd,kde->ke", self.centre, self.bilinear)
        return (user @ direction.T).softmax(-1)

    def forward(self, out: Embeddings, user: Tensor) -> Tensor:
        """Weights with mean 1 of known users, ``[B] -> [B]``."""
        shift = (self.interests(self.old[user]) - self.interests(rows(out.user, user))).square()
        weight = functional.softplus((shift @ self.first + self.bias).relu() @ self.last)
        weight = weight.squeeze(-1)
        return weight / weight.mean()


class ClusterLoss(Term):
    r"""Draws the centres of :class:`PIW` to the items of the block, by KL(P || Q).

    .. math:: q_{ik} \propto \big(1 + \lVert h_i - c_k \rVert^2 / \nu\big)^{-(\nu + 1)/2}, \qquad
        p_{ik} \propto q_{ik}^2 / \textstyle\sum_i q_{ik}

    with :math:`\nu` one less than the number of items. Items are constants here: only the centres
    learn. A mean over items.

    Args:
        weight: owner of the centres.
        item: items of the block ``[n]``.
    """

    def __init__(self, weight: PIW, item: Tensor) -> None:
        super().__init__()
        self.weight, self.item = weight, item

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        """The divergence over the block's items; ``batch`` is not read."""
        item = out.item.detach()[self.item]
        freedom = max(len(self.item) - 1, 1)
        distance = torch.cdist(item, self.weight.centre).square()
        log_q = (-(freedom + 1) / 2 * torch.log1p(distance / freedom)).log_softmax(-1)
        q = log_q.detach().exp()
        p = q.square() / q.sum(0)
        p = p / p.sum(1, keepdim=True)
        return functional.kl_div(log_q, p, reduction="batchmean")


class _LogPartition(torch.autograd.Function):
    """``logsumexp(anchor @ entities.T)`` by row, with gradient to ``entities`` alone.

    The block of scores is made again in the backward instead of being kept: twelve of them, one for
    each layer and kind, would be alive at once.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, entities: Tensor) -> Tensor:
        total = torch.logsumexp(anchor @ entities.T, dim=1)
        ctx.save_for_backward(anchor, entities, total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        anchor, entities, total = ctx.saved_tensors
        share = (anchor @ entities.T).sub_(total.unsqueeze(1)).exp_()
        return None, share.T @ (anchor * grad.unsqueeze(1))


@torch.no_grad()
def similar(lists: UserItems, *, mean_degree: float = 10.0, budget: int = 128 * 2**20) -> UserItems:
    """Entities of one kind joined where the cosine of their binary rows passes a threshold.

    The threshold, in (.1, .9) and a multiple of .001, is the one whose mean degree comes closest to
    ``mean_degree``; nobody is its own neighbour. Rows are taken in chunks, and of their pairs about
    twice as many as are wanted are kept.

    Args:
        lists: rows to compare (CSR).
        mean_degree: neighbours wanted on average over the entities with a row.
        budget: bytes a chunk of cosines may take.
    """
    device, num = lists.item.device, lists.num_users
    size = (num, lists.num_items)
    unit = lists.degree.clamp(min=1).float().rsqrt()
    owner = torch.repeat_interleave(torch.arange(num, device=device), lists.degree)
    matrix = torch.sparse_csr_tensor(
        lists.indptr, lists.item, unit[owner], size=size, check_invariants=False
    )
    wanted = mean_degree * float((lists.degree > 0).sum())
    key = step = torch.empty(0, dtype=torch.int64, device=device)
    least = 101
    for chunk in torch.arange(num, device=device).split(max(1, budget // (4 * max(size)))):
        dense = torch.zeros(lists.num_items, len(chunk), device=device)
        row, item = lists.entries(chunk)
        dense[item, row] = unit[chunk[row]]
        cosine = matrix @ dense
        cosine[chunk, torch.arange(len(chunk), device=device)] = 0.0
        other, row = (cosine > least / 1000 - 1e-3).nonzero(as_tuple=True)
        key = torch.cat([key, chunk[row] * num + other])
        step = torch.cat([step, (cosine[other, row] * 1000).long().clamp_(max=900)])
        above = torch.bincount(step, minlength=901).flip(0).cumsum(0).flip(0)[101:901]
        # One that lets more than twice as many through is never closer than .9, the last.
        least = max(least, min(101 + int((above > 2 * wanted).sum()), 900))
        key, step = key[step >= least], step[step >= least]
    threshold = least + int((above[least - 101 :] - wanted).abs().argmin())
    key = key[step >= threshold].sort().values
    count = torch.bincount(key // num, minlength=num)
    return UserItems(torch.cat([count.new_zeros(1), count.cumsum(0)]), key % num, num)
