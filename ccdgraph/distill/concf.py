"""ConCF: heads with different objectives that learn from their consensus."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.balance import gradnorm
from ccdgraph.distill.consensus import agreed
from ccdgraph.distill.heads import BPR, ITEMS, USERS, Heads, multinomial_loss, pairwise_loss
from ccdgraph.distill.hints import check_dim
from ccdgraph.distill.lists import check_fits, distinct, most_entries, transposed
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term

_SETTLED = 10  # the last epoch whose losses rates count from
# Share of the gradients of the user and of the item table in a head's norm.
_SHARE = ((1.0, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.0), (0.0, 0.5))


class ConCF(Term):
    r"""Heads of different objectives on the student's embeddings, and the consensus they learn.

    .. math:: \ell = \sum_{h=1}^{6} w_h \ell_h + a \sum_{h=1}^{5} \min(\max(w_h, \tfrac12), 2)
        \sum_u \mathrm{RRD}\big(s^h(u, C_{u,1..50}), s^h(u, C_{u,51..100})\big)

    with the heads and losses of :class:`~ccdgraph.distill.heads.Heads`. The consensus
    :math:`C_u` has the unseen items of the largest

    .. math:: \sum_h 1[r_{hui} < 100] \big(e^{-r_{hui} / 10} + e^{-\sigma_{hui} / 100}\big)

    for the current 0-based rank ``r`` and the standard deviation :math:`\sigma` of the ranks at the
    last five looks. A look is taken ``every`` epochs; from the one after epoch ``start`` on there
    is a consensus. The weights follow GradNorm (:func:`~ccdgraph.distill.balance.gradnorm`): they
    are a parameter whose gradient is put in place by an addend of value 0, and are rescaled to mean
    1 before each step. One head is served (:meth:`served`). Evaluation mode computes the loss and
    neither looks nor balances.

    Kang et al., *Consensus Learning from Heterogeneous Objectives for One-Class Collaborative
    Filtering*, WWW 2022, https://arxiv.org/abs/2202.13140. Deviations from the released code: the
    consensus is that of the current look, not of the one before, and :math:`\sigma` is that of
    every look, not of the first; a rank past ``depth`` counts as ``depth``, since only top lists
    are kept; networks run once on the distinct rows of a batch; scores are not clamped; nothing of
    GradNorm leaks into the model; the model's optimiser, with its weight decay, moves the weights.

    Args:
        seen: training items of every user.
        dim: width of the student's embeddings.
        weight: ``a``; 0 trains the heads without a consensus.
        alone: train the head that is served alone, to compare with.
        every: epochs between two looks.
        start: epoch after which there is a consensus.
        k: length of the consensus, of which the first half is ranked.
        depth: length of the lists that a look keeps.
        dropout: of the heads' networks.
        generator: source of the initial values, on the device of ``seen``.
    """

    def __init__(
        self,
        seen: UserItems,
        dim: int,
        *,
        weight: float = 0.005,
        alone: bool = False,
        every: int = 10,
        start: int = 50,
        k: int = 100,
        depth: int = 300,
        dropout: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not 2 <= k <= depth:
            raise ValueError(
                f"'k' is {k} and 'depth' {depth}, expected 2 <= k <= depth; the consensus is made "
                "of the first 'k' of the lists"
            )
        self.seen, self.seen_by, self.dim, self.share = seen, transposed(seen), dim, weight
        self.alone = alone
        self.every, self.start, self.k, self.depth = every, start, k, depth
        sizes = seen.num_users, seen.num_items
        self.heads = Heads(*sizes, dim, dropout=dropout, generator=generator)
        self.weight = nn.Parameter(torch.ones(6, device=generator.device))
        self.looks: deque[Tensor] = deque(maxlen=5)
        self.most = most_entries(seen), most_entries(self.seen_by)
        self.targets: Tensor | None = None
        self.initial = torch.zeros(6, device=generator.device)
        self.epoch, self.due, self.since = 0, False, 0

    def begin_epoch(self, epoch: int) -> None:
        """Note whether a look is due, which the first batch of the epoch takes."""
        self.epoch, self.due = epoch, epoch > 0 and (epoch - 1) % self.every == 0
        self.since = epoch if self.due else self.since

    def fixed(self, epoch: int) -> tuple[int, bool]:
        """The epoch of the latest look, and whether rates still start over."""
        return self.since, epoch <= _SETTLED

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Weighted sum of all heads and, once it exists, their agreement with the consensus."""
        check_fits(out, self.seen)
        check_dim(out, self.dim)
        if self.alone:
            return self._alone(out, batch)
        if self.training and self.due:
            self.look(out.detach())
            self.due = False
        if self.training:
            with torch.no_grad():
                self.weight.mul_(6 / self.weight.sum()).clamp_(min=0.01)
        user, real, slot = distinct(batch.user, self.seen.num_users)
        target = None
        if self.targets is not None:
            target = self.targets[user].masked_fill(~real.unsqueeze(1), -1)
        listed = user.new_empty(0) if target is None else target.clamp(min=0).flatten()
        used = torch.cat([batch.positive, batch.negative.flatten(), listed])
        item, _, place = distinct(used, self.seen.num_items)
        by_user, by_item = rows(out.user, user), rows(out.item, item)
        cut = (len(batch.positive), batch.negative.numel(), len(listed))
        positive, negative, listed = place.split(cut)
        slots = slot, positive, negative.view_as(batch.negative)
        own = self._own((user, real), item, (by_user, by_item), slots)
        weight = self.weight.detach()
        agreement = torch.zeros_like(own)
        if target is not None:
            agreement = self._agreement(by_user, by_item, listed.view_as(target), target)
        pull = self.share * agreement * weight.clamp(0.5, 2)
        total = (weight * own + pull).sum()
        if self.training:
            slope = self._slope(own, pull, (by_user, by_item))
            total = total + (slope * (self.weight - weight)).sum()
        return total

    def _alone(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Loss of the pairwise head, with weight 1."""
        user = self.heads.codes(BPR, rows(out.user, batch.user))
        good, bad = (
            self.heads.codes(BPR, rows(out.item, item.flatten())).unflatten(0, item.shape)
            for item in (batch.positive, batch.negative)
        )
        pairs = self.heads.pairs
        return losses.bpr(pairs(BPR, user, good), pairs(BPR, user.unsqueeze(1), bad))

    def _own(
        self,
        users: tuple[Tensor, Tensor],
        items: Tensor,
        tables: tuple[Tensor, Tensor],
        slots: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """The six training losses ``[6]``."""
        slot, positive, negative = slots
        by_user, by_item = tables
        values = []
        for head in range(BPR, USERS):
            user, item = (self.heads.codes(head, x) for x in tables)
            own = rows(user, slot)
            good = self.heads.pairs(head, own, rows(item, positive))
            bad = self.heads.pairs(head, own.unsqueeze(1), rows(item, negative))
            values.append(pairwise_loss(head, good, bad))
        scores = self.heads.top[USERS](self.heads.codes(USERS, by_user))
        values.append(multinomial_loss(scores, *users, self.seen, self.most[0]))
        # Without the items of the consensus alone, which have no part in this loss.
        place, real, _ = distinct(torch.cat([positive, negative.flatten()]), len(items))
        scores = self.heads.top[ITEMS](self.heads.codes(ITEMS, rows(by_item, place)))
        values.append(multinomial_loss(scores, items[place], real, self.seen_by, self.most[1]))
        return torch.stack(values)

    def _agreement(self, user: Tensor, item: Tensor, place: Tensor, target: Tensor) -> Tensor:
        """How far each head is from the consensus; the last, which only votes, is 0, ``[6]``."""
        half, values = self.k // 2, []
        for head in range(ITEMS):
            code = self.heads.codes(head, item)
            scores = self.heads.lists(
                head, self.heads.codes(head, user), rows(code, place), target.clamp(min=0)
            )
            # Finite, so that a row without a rest has a log-sum-exp whose gradient is not NaN.
            rest = scores.masked_fill(target < 0, torch.finfo(scores.dtype).min / 4)
            rest = rest[:, half:].logsumexp(1)
            values.append(losses.relaxed_ranking(scores[:, :half], rest, target[:, :half] >= 0))
        return torch.stack([*values, torch.zeros_like(values[0])])

    def _slope(self, own: Tensor, pull: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """GradNorm's gradient of the weights, ``[6]``."""
        with torch.no_grad():
            level = self.weight * own
            if self.epoch <= _SETTLED:
                self.initial.copy_(level)
        sums = []
        for head, shares in enumerate(_SHARE):
            gradients = _gradients(own[head], tables), _gradients(pull[head], tables)
            for share, mine, fixed in zip(shares, *gradients, strict=True):
                products = [(a * b).sum() for a, b in ((mine, mine), (mine, fixed), (fixed, fixed))]
                sums.append(torch.stack(products) * share**2)
        own_square, *rest = torch.stack(sums, dim=1).view(3, 6, 2)
        # A loss that was 0, as a hinge may be, has no rate of its own.
        rate = torch.where(self.initial > 0, level / self.initial, 1.0)
        return gradnorm(own_square, torch.stack(rest), self.weight.detach(), rate)

    @torch.no_grad()
    def look(self, out: Embeddings) -> None:
        """Keep every head's lists of ``out`` and, after ``start``, renew the consensus."""
        self.looks.append(self._lists(out))
        if self.share and self.epoch > self.start:
            self.targets = agreed(list(self.looks), self.k)

    @torch.no_grad()
    def ensemble(self, out: Embeddings) -> Tensor:
        """The consensus that a look at ``out`` would give, ``[U, k]``."""
        return agreed([*self.looks, self._lists(out)][-5:], self.k)

    def _lists(self, out: Embeddings) -> Tensor:
        """Every head's lists, ``[6, U, R]``."""
        training = self.heads.training
        self.heads.eval()
        user = torch.arange(out.num_users, device=out.user.device)
        depth = min(self.depth, out.num_items)
        lists = [
            recommend_lists(self.served(out, head), user, depth, self.seen)[1] for head in range(6)
        ]
        self.heads.train(training)
        return torch.stack(lists).to(torch.int32)

    def served(self, out: Embeddings, head: int = BPR) -> Embeddings:
        """Embeddings of one head, to rank with; call it in evaluation mode."""
        return self.heads.served(head, out)


def _gradients(loss: Tensor, rows: tuple[Tensor, Tensor]) -> list[Tensor]:
    """First-order gradients with respect to the rows; zeros where the loss does not depend."""
    if not loss.requires_grad:
        return [torch.zeros_like(x) for x in rows]
    found = torch.autograd.grad(loss, rows, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(rows, found, strict=True)]
