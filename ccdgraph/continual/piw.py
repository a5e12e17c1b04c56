"""PIW: personal weights for the distillation of a model's own past, and how their centres learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.train import Term

_TINY = 1e-30  # what a batch without known users divides by


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

    def forward(self, out: Embeddings, user: Tensor, known: Tensor | None = None) -> Tensor:
        """Weights of users that the old model has, ``[B] -> [B]``; their mean is 1.

        Args:
            out: current embeddings.
            user: user ids ``[B]``.
            known: which of them count in the mean ``[B]``; all by default.
        """
        shift = (self.interests(self.old[user]) - self.interests(rows(out.user, user))).square()
        weight = functional.softplus((shift @ self.first + self.bias).relu() @ self.last)
        weight = weight.squeeze(-1)
        counts = torch.ones_like(weight) if known is None else known.to(weight.dtype)
        # A batch without known users has no mean, and none of its weights is read.
        return weight * counts.sum().clamp(min=1) / (weight * counts).sum().clamp(min=_TINY)


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
