"""Six heads on shared embeddings, each with a training objective of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Embeddings

BPR, CML, BCE, MSE, USERS, ITEMS = range(6)
"""Pairwise, metric, two pointwise heads, and multinomial ones over items and over users."""

_CHUNK = 2**24  # scores of a block of items by all users


class Heads(nn.Module):
    r"""A small network per head on user and item embeddings, and what the head makes of it.

    Each network is ``Linear(d, d/2), Dropout, ReLU, Linear(d/2, q)`` with ``q = d/4``. On its codes
    :math:`x_u, x_i`, the heads score

    ======== ===================================== =============================================
    head     score of a pair                       loss of a batch
    ======== ===================================== =============================================
    `BPR`    :math:`\langle W x_u, W x_i \rangle`  :math:`-\log \sigma(s^+ - s^-)`
    `CML`    :math:`-\lVert b_u - b_i \rVert^2`    :math:`\max(1 + s^- - s^+, 0)`
    `BCE`    :math:`w^\top (x_u \odot x_i) + b`    cross-entropy with 1 and 0
    `MSE`    the same with its own parameters      squared error to 1 and 0
    `USERS`  :math:`\langle w_i, x_u \rangle +b_i` :math:`-\sum_{i \in N_u}\log\mathrm{softmax}_i`
    `ITEMS`  :math:`\langle w_u, x_i \rangle +b_u` :math:`-\sum_{u \in N_i}\log\mathrm{softmax}_u`
    ======== ===================================== =============================================

    where :math:`b = W x / \max(1, \lVert W x \rVert)`.

    Args:
        num_users: outputs of the head `ITEMS`.
        num_items: outputs of the head `USERS`.
        dim: width of the embeddings ``d``, at least 4.
        dropout: share of hidden units left out in training.
        generator: source of the initial values.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        dropout: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if dim < 4:
            raise ValueError(f"'dim' is {dim}, expected 4 or more; the heads' codes have dim / 4")
        half, code = dim // 2, dim // 4

        def linear(inputs: int, outputs: int) -> nn.Module:
            layer: nn.Module = skip_init(nn.Linear, inputs, outputs, device=generator.device)
            for value in layer.parameters():
                nn.init.uniform_(value, -(inputs**-0.5), inputs**-0.5, generator=generator)
            return layer

        self.bottom = nn.ModuleList(
            nn.Sequential(linear(dim, half), nn.Dropout(dropout), nn.ReLU(), linear(half, code))
            for _ in range(6)
        )
        outputs = (code, code, 1, 1, num_items, num_users)
        self.top = nn.ModuleList(linear(code, size) for size in outputs)

    def codes(self, head: int, x: Tensor) -> Tensor:
        """What the head compares, ``[n, d] -> [n, q]``."""
        code: Tensor = self.bottom[head](x)
        if head in (BPR, CML):
            code = self.top[head](code)
        if head == CML:
            code = code / code.norm(dim=1, keepdim=True).clamp(min=1)
        return code

    def pairs(self, head: int, user: Tensor, item: Tensor) -> Tensor:
        """Scores of pairs of codes, ``[..., q], [..., q] -> [...]``; of the first four heads."""
        if head == CML:
            return -(user - item).square().sum(-1)
        if head == BPR:
            return (user * item).sum(-1)
        weight, bias = self.top[head].parameters()
        return (user * item) @ weight[0] + bias

    def lists(self, head: int, user: Tensor, item: Tensor, index: Tensor) -> Tensor:
        """Scores of the items ``index [n, k]`` with codes ``item [n, k, q]``, ``[n, k]``."""
        if head != USERS:
            return self.pairs(head, user.unsqueeze(1), item)
        weight, bias = self.top[head].parameters()
        return torch.einsum("nq,nkq->nk", user, functional.embedding(index, weight)) + bias[index]

    def served(self, head: int, out: Embeddings) -> Embeddings:
        """Embeddings whose inner products rank the items of a user as the head does.

        Args:
            head: which one.
            out: the shared embeddings.
        """
        user, item = self.codes(head, out.user), self.codes(head, out.item)
        weight, bias = self.top[head].parameters()
        if head == BPR:
            return Embeddings(user, item)
        if head == CML:  # 2 <u, i> - |i|^2 is the score up to |u|^2
            return Embeddings(
                _with(2 * user, torch.ones_like(user[:, 0])), _with(item, -item.square().sum(1))
            )
        if head in (BCE, MSE):
            return Embeddings(user * weight[0], item)
        if head == USERS:
            return Embeddings(_with(user, torch.ones_like(user[:, 0])), _with(weight, bias))
        size = max(1, _CHUNK // max(1, len(weight)))
        parts = [(part @ weight.T + bias).logsumexp(1) for part in item.split(size)]
        ones = torch.ones_like(item[:, 0])
        return Embeddings(
            _with(weight, bias, torch.ones_like(bias)), _with(item, ones, -torch.cat(parts))
        )


def pairwise_loss(head: int, good: Tensor, bad: Tensor) -> Tensor:
    """Loss of one of the first four heads from scores of pairs ``[B]`` and negatives ``[B, n]``."""
    if head == BPR:
        return losses.bpr(good, bad)
    if head == CML:
        return (1 + bad - good.unsqueeze(1)).relu().sum()
    if head == BCE:
        return functional.softplus(-good).sum() + functional.softplus(bad).sum()
    return (good - 1).square().sum() + bad.square().sum()


def multinomial_loss(
    scores: Tensor, index: Tensor, real: Tensor, known: UserItems, most: Sequence[int]
) -> Tensor:
    """Negative log-softmax of the known entries of rows with scores ``[n, N]``.

    Args:
        scores: of every entry.
        index: the rows ``[n]``.
        real: which rows count ``[n]``.
        known: entries of every row.
        most: see :func:`~ccdgraph.distill.lists.most_entries`.
    """
    size = most[min(len(index), len(most) - 1)]
    row, entry = known.padded_entries(index, size, real)
    place = row.clamp(max=len(index) - 1) * scores.size(1) + entry
    log_share = scores.log_softmax(1).flatten().gather(0, place)
    return -log_share.masked_fill(row == len(index), 0.0).sum()


def _with(x: Tensor, *column: Tensor) -> Tensor:
    """``x [n, q]`` with further columns ``[n]``."""
    return torch.cat([x, torch.stack(column, dim=1)], dim=1)
