"""IR-RRD: sampled lists of users, and of the items that they bring into a batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.lists import (
    check_fits,
    check_lists,
    draw_listed,
    draw_rest,
    each_once,
    listed_keys,
    transposed,
    users_once,
)
from ccdgraph.distill.teacher import TeacherLists
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.train import Term


class IRRRD(Term):
    r"""Relaxed rankings sampled from the teacher's lists: RRD, regularised on the item side.

    .. math:: \ell = \sum_{u} \mathrm{RRD}\big(s(u, \pi^u), s(u, \nu^u)\big)
        + \gamma \sum_{i \in Q} \mathrm{RRD}\big(s(\pi^i, i), s(\nu^i, i)\big)

    with :func:`ccdgraph.losses.relaxed_ranking` as RRD, over the distinct users of the batch.
    :math:`\pi^u` are ``k`` places of the teacher's list in order, drawn with weights
    :math:`e^{-r / T}`; :math:`\nu^u` are ``k`` distinct items, neither seen nor anywhere in the
    list. The item side is the same with users and items exchanged. Both are drawn once an epoch.
    ``Q`` is ``"sampled"``, all distinct items of :math:`\pi^u` and :math:`\nu^u`, as in the
    released code, or ``"batch"``, the positives and negatives of the batch. With
    ``item_weight = 0`` this is RRD as published; :class:`~ccdgraph.distill.rrd.RRD` takes the lists
    whole.

    Kang et al., *DE-RRD*, CIKM 2020, https://arxiv.org/abs/2012.04357, and *Item-side Ranking
    Regularized Distillation*, Information Sciences 2021,
    https://github.com/SeongKu-Kang/IR-RRD_INS21. Deviation from the released code: log-sum-exp, so
    no overflow.

    Args:
        lists: the teacher's lists of both sides; all of them are kept out of the rest.
        seen: training items of every user.
        k: places drawn for a user, and the size of the rest.
        k_users: places drawn for an item, and the size of its rest.
        temperature: ``T`` of both sides.
        item_weight: :math:`\gamma`; the published weights 1e-3 and 5e-4 make 0.5.
        queries: what ``Q`` is.
        generator: source of the draws, on the device of ``lists``.
    """

    def __init__(
        self,
        lists: TeacherLists,
        seen: UserItems,
        *,
        k: int = 40,
        k_users: int = 20,
        temperature: float = 10.0,
        item_weight: float = 0.5,
        queries: Literal["sampled", "batch"] = "sampled",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if queries not in ("sampled", "batch"):
            raise ValueError(f"'queries' is {queries!r}, expected 'sampled' or 'batch'")
        self.seen, self.item_weight, self.queries = seen, item_weight, queries
        self.by_user = _Side(lists.items, seen, k, temperature, "lists.items")
        if item_weight:
            by = transposed(seen)
            self.by_item = _Side(lists.users, by, k_users, temperature, "lists.users")
        self.generator = generator
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the lists and the rest of every user, and of every item."""
        self.by_user.draw(self.generator)
        if self.item_weight:
            self.by_item.draw(self.generator)

    def fixed(self, epoch: int) -> None:
        """Nothing: draws replace one another in place."""

    def forward(self, out: Embeddings, batch: Triplets | Entities) -> Tensor:
        """Sum over the distinct users of the batch and the items ``Q``."""
        check_fits(out, self.seen)
        user, once = users_once(batch)
        loss = self._relaxed(out, user, once, self.by_user)
        if not self.item_weight:
            return loss
        sampled = torch.cat([self.by_user.listed[user], self.by_user.rest[user]], dim=1)
        item, once = self._queries(batch, sampled)
        return loss + self.item_weight * self._relaxed(out.flipped(), item, once, self.by_item)

    def _queries(self, batch: Triplets | Entities, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Items, and a mask with one place of each that counts."""
        if self.queries == "sampled":
            # Who pads or repeats is marked in the catalogue or in the batch, whichever is shorter.
            if sampled.numel() < self.seen.num_items:
                item, once = each_once(sampled.flatten())
                return item.clamp(min=0), once & (item >= 0)
            found = torch.zeros(self.seen.num_items + 1, dtype=torch.bool, device=sampled.device)
            place = torch.where(sampled >= 0, sampled, self.seen.num_items)
            found.index_fill_(0, place.flatten(), True)
            return torch.arange(self.seen.num_items, device=sampled.device), found[:-1]
        if isinstance(batch, Entities):
            raise ValueError("'queries' is 'batch', which needs batches of triplets, not of users")
        return each_once(torch.cat([batch.positive, batch.negative.flatten()]))

    @staticmethod
    def _relaxed(out: Embeddings, index: Tensor, once: Tensor, side: _Side) -> Tensor:
        """The relaxed ranking loss of the rows ``index [n]`` that count."""
        row, listed, rest = index.unsqueeze(1), side.listed[index], side.rest[index]
        top = out.pairs(row, listed.clamp(min=0))
        others = out.pairs(row, rest.clamp(min=0))
        # Finite, so that a row without a rest has a log-sum-exp with a gradient that is not NaN.
        others = others.masked_fill(rest < 0, torch.finfo(others.dtype).min / 4)
        real = (listed >= 0) & once.unsqueeze(1)
        return losses.relaxed_ranking(top, others.logsumexp(1), real)


class _Side:
    """Lists of one side and what is drawn from them, ``[N, k]`` each."""

    def __init__(
        self, lists: Tensor, seen: UserItems, k: int, temperature: float, name: str
    ) -> None:
        check_lists(lists, seen, k, name)
        self.lists, self.k, self.temperature = lists, k, temperature
        self.num_entries, self.exclude = seen.num_items, listed_keys(lists, seen)
        self.listed, self.rest = (lists.new_empty(len(lists), k) for _ in range(2))

    def draw(self, generator: torch.Generator) -> None:
        listed = draw_listed(self.lists, self.k, self.temperature, generator=generator)
        size = len(listed), self.num_entries, self.k
        self.listed.copy_(listed)
        self.rest.copy_(draw_rest(self.exclude, *size, generator=generator))
