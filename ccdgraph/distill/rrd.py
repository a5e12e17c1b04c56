"""RRD and IR-RRD: distillation of ranked lists, on the user side and on the item side."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Embeddings, rows
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
    https://doi.org/10.1016/j.ins.2021.08.060. Deviations: the served scores are distilled (the code
    of CCD distils the layer-0 tables), the lists are taken whole instead of sampled, as the authors
    later advise, and ``num_rest`` entries are drawn once for everyone and masked by user, since
    they are most of the catalogue and one matrix product scores them all.

    Args:
        lists: the teacher's lists, best first, ``[U, K]`` (or ``[I, K]``); ``-1`` pads.
        seen: pairs that belong neither to a list nor to the rest; users in the role of items on
            the item side (``BipartiteGraph.item_users``).
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
        self.seen, self.side = seen, side
        self.num_rest, self.redraw, self.generator = num_rest, redraw, generator
        # A padded place points at entry 0, which stays in the rest unless it is listed itself.
        self.place, self.real = lists.clamp(min=0), lists >= 0
        self.first_stays = ~(lists == 0).any(1)
        # The most entries that any batch of n users can have seen, so that no step has to ask.
        self.most = seen.degree.sort(descending=True).values.cumsum(0).cpu()
        self.everything = torch.arange(seen.num_items, device=lists.device)
        self.order: Tensor | None = None
        self.kept: Tensor | None = None
        self.dropped: Tensor | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Draw the entries that stay in the rest, in the place of the last ones."""
        size = self.seen.num_items
        if 0 < self.num_rest < size and epoch % self.redraw == 0:
            order = torch.randperm(size, generator=self.generator, device=self.place.device)
            self.order = order if self.order is None else self.order.copy_(order)
            self.kept, self.dropped = self.order[: self.num_rest], self.order[self.num_rest :]

    def fixed(self, epoch: int) -> bool:
        """Whether entries are drawn at all."""
        return self.order is not None

    def reads(self, batch: Entities) -> tuple[Tensor, Tensor]:
        """Those of the batch, what is on their lists, and the entries that stay in the rest."""
        if self.kept is None:
            raise ValueError(
                f"'num_rest' is {self.num_rest} of {self.seen.num_items} entries, so RRD reads all "
                "embeddings; draw fewer, or set 'fanout' to none"
            )
        theirs = torch.cat([self.place[batch.index].flatten(), self.kept])
        return (batch.index, theirs) if self.side == "user" else (theirs, batch.index)

    def forward(self, out: Embeddings, batch: Entities) -> Tensor:
        """Sum over the users (or items) of the batch."""
        out = out if self.side == "user" else out.flipped()
        index, real = batch.index, self.real[batch.index]
        seen = self.seen.padded_entries(index, int(self.most[len(index) - 1]) if len(index) else 0)
        # Below half, scoring what is kept alone costs less than masking the rest of a whole block.
        few = self.kept is not None and 2 * self.num_rest < self.seen.num_items
        if few or out.ids is not None or out.network is not None:
            kept = self.everything if self.kept is None else self.kept
            return losses.relaxed_ranking(*self._scored_alone(out, index, kept, *seen), real)
        listed, rest = _ListedAndRest.apply(  # type: ignore[no-untyped-call]
            rows(out.user, index),
            out.item,
            self.place[index],
            real,
            self.first_stays[index],
            *seen,
            self.dropped,
        )
        return losses.relaxed_ranking(listed, rest, real)

    def _scored_alone(
        self, out: Embeddings, index: Tensor, kept: Tensor, row: Tensor, entry: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As :class:`_ListedAndRest`, with the scores of the kept entries and of the lists only."""
        place, real = self.place[index], self.real[index]
        listed = out.pairs(index.unsqueeze(1), place)
        column = torch.full((self.seen.num_items,), len(kept), device=kept.device)
        column[kept] = torch.arange(len(kept), device=kept.device)
        # One row and one column more take what pads, and what is not kept.
        hidden = torch.zeros(len(index) + 1, len(kept) + 1, dtype=torch.bool, device=kept.device)
        hidden[row, column[entry]] = True
        hidden[:-1].scatter_(1, torch.where(real, column[place], len(kept)), True)
        hidden = hidden[:-1, :-1]
        empty = hidden.all(1)
        scores = out.block(out.user_rows(index), out.item_rows(kept))
        rest = scores.masked_fill(hidden & ~empty.unsqueeze(1), float("-inf")).logsumexp(1)
        return listed, rest.masked_fill(empty, float("-inf"))


class _ListedAndRest(torch.autograd.Function):
    """Scores of the listed entries ``[B, K]`` and log-sum-exp of the others ``[B]``.

    Written by hand because the block of scores ``[B, N]`` is the only large tensor: it is made
    once, turned into probabilities in place, and both gradients are products with it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        ours: Tensor,
        theirs: Tensor,
        place: Tensor,
        real: Tensor,
        first_stays: Tensor,
        row: Tensor,
        entry: Tensor,
        dropped: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        num = len(ours)
        # One row more takes what pads the seen entries.
        padded = torch.cat([ours, ours.new_zeros(1, ours.size(1))]) @ theirs.T
        scores = padded[:num]
        listed = scores.gather(1, place)
        first = scores[:, 0].clone()
        scores.scatter_(1, place, float("-inf"))
        scores[:, 0] = torch.where(first_stays, first, scores[:, 0])
        padded.view(-1).index_fill_(0, row * padded.size(1) + entry, float("-inf"))
        if dropped is not None:
            scores.index_fill_(1, dropped, float("-inf"))
        top = scores.amax(1, keepdim=True)
        top = torch.where(top.isinf(), torch.zeros_like(top), top)
        total = scores.sub_(top).exp_().sum(1)
        ctx.save_for_backward(ours, theirs, place, real, scores, total)
        return listed, total.log() + top.squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad_listed: Tensor, grad_rest: Tensor) -> tuple[Tensor | None, ...]:
        ours, theirs, place, real, share, total = ctx.saved_tensors
        # A row without a rest has total 0 and shares 0: nothing flows.
        scale = (grad_rest / torch.where(total == 0, torch.ones_like(total), total)).unsqueeze(1)
        listed = (grad_listed * real).unsqueeze(2)
        by_place = rows(theirs, place)
        grad_ours = scale * (share @ theirs) + (listed * by_place).sum(1)
        grad_theirs = share.T @ (scale * ours)
        grad_theirs.index_add_(0, place.flatten(), (listed * ours.unsqueeze(1)).flatten(0, 1))
        return grad_ours, grad_theirs, *(None,) * 6
