"""RRD and IR-RRD: distillation of ranked lists, on the user side and on the item side."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Entities
from ccdgraph.train import Term


class RRD(Term):
    r"""The teacher's list in order, before the uninteresting rest, on one side of the graph.

    For users :math:`\pi` is the teacher's list and :math:`\nu` the rest of the catalogue without
    seen items; the item side is the same with users and items exchanged.

    .. math:: \ell = -\sum_u \sum_{k=1}^{K} \log \frac{e^{s(u, \pi_k)}}
        {\sum_{m \ge k} e^{s(u, \pi_m)} + \sum_{\nu} e^{s(u, \nu)}}

    User side: Kang et al., *DE-RRD*, CIKM 2020, https://arxiv.org/abs/2012.04357. Item side: Kang
    et al., *Item-side Ranking Regularized Distillation*, Information Sciences 2021,
    https://arxiv.org/abs/2107.10545. Deviations: the served scores are distilled (the code of CCD
    distils the layer-0 tables), the lists are taken whole instead of sampled, as the authors later
    advise, and ``num_rest`` entries are drawn once for everyone and masked by user, since they are
    most of the catalogue and one matrix product scores them all.

    Args:
        lists: the teacher's lists, best first, ``[U, K]`` (or ``[I, K]``); ``-1`` pads.
        seen: pairs that belong neither to a list nor to the rest; users in the role of items on
            the item side (:attr:`BipartiteGraph.item_users`).
        side: ``"user"`` or ``"item"``.
        num_rest: size of the sample the rest is reduced to; 0 takes all of it.
        redraw: epochs between two draws of that sample.
        generator: source of the draws, on the device of ``lists``.
    """

    def __init__(
        self,
        lists: Tensor,
        seen: UserItems,
        *,
        side: Literal["user", "item"] = "user",
        num_rest: int = 0,
        redraw: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if lists.size(0) != seen.num_users:
            raise ValueError(
                f"'lists' has {lists.size(0)} rows, 'seen' {seen.num_users}; both need one for "
                f"every {side}"
            )
        self.lists, self.seen, self.side = lists, seen, side
        self.num_rest, self.redraw, self.generator = num_rest, redraw, generator
        self.dropped: Tensor | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Draw the entries that stay in the rest."""
        size = self.seen.num_items
        if self.num_rest and self.num_rest < size and epoch % self.redraw == 0:
            order = torch.randperm(size, generator=self.generator, device=self.lists.device)
            self.dropped = order[self.num_rest :]

    def forward(self, out: Embeddings, batch: Entities) -> Tensor:
        """Sum over the users (or items) of the batch."""
        ours, theirs = (out.user, out.item) if self.side == "user" else (out.item, out.user)
        row, entry = self.seen.entries(batch.index)
        listed, rest = _ListedAndRest.apply(  # type: ignore[no-untyped-call]
            ours[batch.index], theirs, self.lists[batch.index], row, entry, self.dropped
        )
        return losses.relaxed_ranking(listed, rest, self.lists[batch.index] >= 0)


class _ListedAndRest(torch.autograd.Function):
    """Scores of the listed entries ``[B, K]`` and log-sum-exp of the others ``[B]``.

    Written by hand because the block of scores ``[B, N]`` is the only large tensor: it is made
    once, turned into probabilities in place and into its own gradient in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        ours: Tensor,
        theirs: Tensor,
        lists: Tensor,
        row: Tensor,
        entry: Tensor,
        dropped: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        scores = ours @ theirs.T
        place = lists.clamp(min=0)
        listed = scores.gather(1, place)
        # A padded place points at entry 0, which must stay in the rest.
        first = scores[:, 0].clone()
        scores.scatter_(1, place, float("-inf"))
        kept = ~((lists == 0).any(1))
        scores[:, 0] = torch.where(kept, first, scores[:, 0])
        scores[row, entry] = float("-inf")
        if dropped is not None:
            scores.index_fill_(1, dropped, float("-inf"))
        top = scores.amax(1, keepdim=True)
        top = torch.where(top.isinf(), torch.zeros_like(top), top)
        scores.sub_(top).exp_()
        total = scores.sum(1, keepdim=True)
        # A row without a rest has total 0: its log is -inf, its probabilities are 0.
        scores.div_(torch.where(total == 0, torch.ones_like(total), total))
        ctx.save_for_backward(ours, theirs, lists, scores)
        return listed, (total.log() + top).squeeze(1)

    @staticmethod
    def backward(
        ctx: Any, grad_listed: Tensor, grad_rest: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None, None]:
        ours, theirs, lists, probability = ctx.saved_tensors
        grad = probability * grad_rest.unsqueeze(1)
        grad.scatter_add_(1, lists.clamp(min=0), grad_listed * (lists >= 0))
        return grad @ theirs, grad.T @ ours, None, None, None, None
