"""RD: ranking distillation, the teacher's best items as positives weighted by place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.lists import check_fits, check_lists, users_once
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Entities, Triplets, draw_negatives
from ccdgraph.train import Term


class RD(Term):
    r"""The teacher's best unseen items as positives, those that the student ranks low first.

    .. math:: \ell = -\sum_u \sum_{r=1}^{K} w_{ur} \log \sigma(s(u, \pi_r)), \qquad
        w_{ur} \propto e^{-r / \lambda} \max\big(\tanh(\mu (\hat r - r)), 0\big), \qquad
        \hat r = \Big\lfloor \frac{n}{\epsilon} (I - 1) \Big\rfloor + 1

    where ``n`` of :math:`\epsilon` unseen items, drawn once an epoch, score higher than
    :math:`\pi_r`. The weights of a user sum to 1, or are all 0 where no item is ranked too low.
    Before epoch ``start`` the second factor is left out. Tang and Wang, *Ranking Distillation*,
    KDD 2018, https://arxiv.org/abs/1809.07428. Deviations: the places of both ranks count from 1
    (the released code counts those of the teacher from 0); a sum over users, not a mean.

    Args:
        lists: the teacher's lists ``[U, K']``, best first; ``-1`` pads.
        seen: items that are never drawn.
        k: length the lists are cut to.
        sharpness: :math:`\lambda`, how slowly the weight falls with the place.
        mu: how fast a wrong rank gains weight.
        num_samples: draws :math:`\epsilon` a user.
        start: first epoch in which the student's ranks count.
        generator: source of the draws, on the device of ``lists``.
    """

    def __init__(
        self,
        lists: Tensor,
        seen: UserItems,
        *,
        k: int = 10,
        sharpness: float = 1.0,
        mu: float = 0.1,
        num_samples: int = 100,
        start: int = 50,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_lists(lists, seen, k)
        self.lists, self.seen, self.exclude = lists[:, :k], seen, seen.keys()
        place = torch.arange(1, k + 1, device=lists.device)
        self.place, self.by_place = place, (-place / sharpness).softmax(0)
        self.mu, self.num_samples, self.start = mu, num_samples, start
        self.generator = generator
        self.samples: Tensor | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Draw the items that estimate the student's ranks, once they count."""
        if epoch >= self.start:
            everyone = torch.arange(self.seen.num_users, device=self.lists.device)
            fresh = draw_negatives(
                everyone,
                self.seen.num_items,
                self.num_samples,
                self.exclude,
                generator=self.generator,
            )
            self.samples = fresh if self.samples is None else self.samples.copy_(fresh)

    def fixed(self, epoch: int) -> bool:
        """Whether the student's ranks count."""
        return epoch >= self.start

    def forward(self, out: Embeddings, batch: Triplets | Entities) -> Tensor:
        """Sum over the distinct users of the batch."""
        check_fits(out, self.seen)
        user, once = users_once(batch)
        listed = self.lists[user]
        score = out.pairs(user.unsqueeze(1), listed.clamp(min=0))
        weight = self.weights(out, user, score).masked_fill((listed < 0) | ~once.unsqueeze(1), 0.0)
        return -(weight * functional.logsigmoid(score)).sum()

    @torch.no_grad()
    def weights(self, out: Embeddings, user: Tensor, score: Tensor) -> Tensor:
        """Weight of every place from the student's scores of it, ``[B], [B, K] -> [B, K]``."""
        by_place = self.by_place.to(score.dtype).expand_as(score)
        if self.samples is None:
            return by_place
        sampled = out.pairs(user.unsqueeze(1), self.samples[user]).sort(1).values
        higher = self.num_samples - torch.searchsorted(sampled, score, right=True)
        rank = higher * (self.seen.num_items - 1) // self.num_samples + 1
        by_rank = (self.mu * (rank - self.place)).tanh().clamp(min=0)
        return functional.normalize(by_place * by_rank, p=1, dim=1)
