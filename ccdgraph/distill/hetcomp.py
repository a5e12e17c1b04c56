"""HetComp: a student follows the training trajectories of many teachers, from easy to hard."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.consensus import consensus, ranks_in
from ccdgraph.distill.lists import check_fits, check_lists, most_entries, users_once
from ccdgraph.distill.trajectory import Trajectories, check_trajectories
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.train import Term


class HetComp(Term):
    r"""The consensus of the checkpoints that suit each user now, first as a set, then as an order.

    With :math:`P_u` the first observed items as the ensemble orders them, :math:`T_u` the consensus
    and :math:`Z_u^n` the log-sum-exp of the scores of unseen items outside the first ``n`` of
    :math:`T_u`, the loss of a user is

    .. math:: \sum_{i \in P_u \cup T_u} \log\big(1 + e^{Z_u^{100} - s_{ui}}\big)

    until every user follows the last checkpoint of every teacher, and from then on ``order_weight``
    times

    .. math:: \mathrm{RL}(P_u, Z_u^{50}) + \tfrac12 \big(\mathrm{RL}(T_{u, 1..50}, Z_u^{50})
        + \mathrm{RL}(T_{u, 1..10}, Z_u^{10})\big), \quad
        \mathrm{RL}(\pi, Z) = \sum_k \log\Big(e^Z + \sum_{j \ge k} e^{s_{\pi_j}}\Big) - s_{\pi_k}

    Every ``every`` epochs a user whose discrepancy (:func:`discrepancy`) from a teacher's next
    checkpoint has come down moves on to it (:meth:`construct`). Kang et al., *Distillation from
    Heterogeneous Models for Top-K Recommendation*, WWW 2023, https://arxiv.org/abs/2303.01130.
    Deviations from the released code: top lists instead of dense importances (the same consensus
    where an entry outside them weighs 0); the second loss waits for all users, not for rounded
    means; discrepancies are not rounded; a user whose discrepancy is 0 moves on even if it was 0
    before; scores are not clamped; the weight of an entry is that of its place, since the released
    files with weights are not public.

    Args:
        trajectories: lists of at least two checkpoints a teacher.
        observed: training items of each user, best first ``[U, P]``; ``-1`` pads
            (:func:`~ccdgraph.distill.trajectory.observed_lists`).
        seen: training items of every user.
        k: length of the consensus.
        compared: length ``K'`` of the lists that are compared.
        order: how much of the consensus is ranked; a fifth of it again, against all below.
        every: epochs between two constructions.
        alpha: threshold of moving on; it falls by ``decay`` with each construction.
        decay: see ``alpha``.
        order_weight: weight of the second loss relative to the first.
        curriculum: ``False`` starts everyone at the last checkpoints, with the second loss.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        observed: Tensor,
        seen: UserItems,
        *,
        k: int = 100,
        compared: int = 50,
        order: int = 50,
        every: int = 10,
        alpha: float = 1.05,
        decay: float = 0.995,
        order_weight: float = 0.5,
        curriculum: bool = True,
    ) -> None:
        super().__init__()
        check_trajectories(trajectories, seen, max(k, compared))
        check_lists(observed, seen, 1, "observed")
        self.trajectories, self.observed, self.seen = trajectories, observed, seen
        self.most = most_entries(seen)
        self.k, self.compared, self.order, self.every = k, compared, min(order, k), every
        self.alpha, self.decay, self.order_weight = alpha, decay, order_weight
        self.last_step = trajectories.lists.size(1) - 1
        # A user whom a teacher has nothing to tell has arrived.
        arrived = (trajectories.lists[:, -1, :, 0] < 0) | (not curriculum)
        self.step = arrived.long() * self.last_step  # [M, U], the checkpoint that is followed
        self.before: Tensor | None = None  # [M, U], discrepancy when the step was taken
        self.targets, self.finished = self._targets(), bool((self.step == self.last_step).all())
        self.epoch, self.due, self.since = 0, False, 0

    def begin_epoch(self, epoch: int) -> None:
        """Note whether a construction is due, which the first batch of the epoch makes."""
        self.epoch = epoch
        self.due = epoch > 0 and epoch % self.every == 0 and not self.finished
        self.since = epoch if self.due else self.since

    def fixed(self, epoch: int) -> int:
        """The epoch whose first batch made the latest construction."""
        return self.since

    def forward(self, out: Embeddings, batch: Triplets | Entities) -> Tensor:
        """Sum over the distinct users of the batch."""
        check_fits(out, self.seen)
        if self.training and self.due:
            self.construct(out.detach())
        self.due = False
        user, once = users_once(batch)
        counts = once.unsqueeze(1)
        scores = out.scores(user)
        listed, observed = self.targets[user], self.observed[user]
        top, own = (scores.gather(1, x.clamp(min=0)) for x in (listed, observed))
        if not self.finished:
            rest = self._rest(scores, user, once, listed).unsqueeze(1)
            both = torch.cat([top, own], dim=1)
            real = (torch.cat([listed, observed], dim=1) >= 0) & counts
            return functional.softplus(rest - both).masked_fill(~real, 0.0).sum()
        n, first = self.order, max(self.order // 5, 1)
        real, rest = (listed >= 0) & counts, self._rest(scores, user, once, listed[:, :n])
        middle = _masked(top[:, first:n], real[:, first:n])
        below = torch.cat([middle, rest.unsqueeze(1)], dim=1).logsumexp(1)
        fine = losses.relaxed_ranking(top[:, :n], rest, real[:, :n])
        finest = losses.relaxed_ranking(top[:, :first], below, real[:, :first])
        coarse = losses.relaxed_ranking(own, rest, (observed >= 0) & counts)
        return self.order_weight * (coarse + 0.5 * (fine + finest))

    def _rest(self, scores: Tensor, user: Tensor, once: Tensor, listed: Tensor) -> Tensor:
        """Log-sum-exp of the scores of unseen items that are not listed, ``[B, I] -> [B]``."""
        # One row and one column more take what pads.
        kept = scores.new_ones(scores.size(0) + 1, scores.size(1) + 1, dtype=torch.bool)
        kept[:-1].scatter_(1, torch.where(listed >= 0, listed, scores.size(1)), False)
        most = self.most[min(len(user), len(self.most) - 1)]
        row, item = self.seen.padded_entries(user, most, once)
        kept.view(-1).index_fill_(0, row * kept.size(1) + item, False)
        return _masked(scores, kept[:-1, :-1]).logsumexp(1)

    @torch.no_grad()
    def construct(self, out: Embeddings) -> None:
        r"""Let users move on to the next checkpoints and renew their consensus.

        The first call notes the discrepancy :math:`d` from the second checkpoint. Later a user
        whose ratio :math:`d / d'` to the present discrepancy :math:`d'` from the next checkpoint
        exceeds the threshold, or is below 1, moves on and notes the discrepancy from the one after.
        """
        user = torch.arange(out.num_users, device=self.step.device)
        count = min(self.compared, out.num_items)
        own = recommend_lists(out, user, count, self.seen)[1]
        if self.before is None:
            self.before = self._from(own, (self.step + 1).clamp(max=self.last_step))
            return
        threshold = self.alpha * self.decay ** (self.epoch // self.every)
        now = self._from(own, (self.step + 1).clamp(max=self.last_step))
        ratio = torch.where(now > 0, self.before / now, float("inf"))
        moves = ((ratio > threshold) | (ratio < 1)) & (self.step < self.last_step)
        beyond = self._from(own, (self.step + 2).clamp(max=self.last_step))
        self.before = torch.where(moves, beyond, self.before)
        self.step = self.step + moves
        self.targets = self._targets()
        self.finished = bool((self.step == self.last_step).all())

    def _from(self, own: Tensor, step: Tensor) -> Tensor:
        lists = self._at(self.trajectories.lists, step)
        return discrepancy(own, lists[..., : self.compared])

    def _targets(self) -> Tensor:
        weight = self._at(self.trajectories.weight, self.step)
        return consensus(self._at(self.trajectories.lists, self.step), weight, self.k)

    @staticmethod
    def _at(values: Tensor, step: Tensor) -> Tensor:
        """The rows of each user's checkpoint, ``[M, V, U, K], [M, U] -> [M, U, K]``."""
        place = step[:, None, :, None].expand(-1, 1, -1, values.size(3))
        return values.gather(1, place).squeeze(1)


def discrepancy(own: Tensor, lists: Tensor) -> Tensor:
    r"""How much of a user's own list is missing from other lists, the top counting most.

    .. math:: 1 - \sum_t 1[a_t \in b] g_t \Big/ \sum_t g_t, \qquad
        g_t = \frac{2^{e^{-t / 10}} - 1}{\log_2(t + 2)}

    Args:
        own: ``a``, best first ``[U, K]``; ``-1`` pads.
        lists: ``b``, in any order ``[M, U, K']``.

    Returns:
        ``[M, U]``; 0 for a user without a list.
    """
    place = torch.arange(own.size(1), device=own.device)
    gain = ((-place / 10).exp().exp2() - 1) / (place + 2.0).log2()
    found = ranks_in(lists.contiguous(), own.expand(len(lists), -1, -1).contiguous())
    missing = (found == lists.size(2)) & (own >= 0)
    share: Tensor = (missing * gain).sum(2) / ((own >= 0) * gain).sum(1).clamp(min=1e-9)
    return share


def _masked(scores: Tensor, real: Tensor) -> Tensor:
    """``scores`` with a finite least value elsewhere, so that no gradient becomes NaN."""
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min / 4)
