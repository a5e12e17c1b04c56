"""CD: collaborative distillation, soft labels on items drawn by rank."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph import losses
from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.lists import check_fits, check_lists, draw_listed, users_once
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.train import Term


class CD(Term):
    r"""The teacher's probabilities as soft labels of unseen items that it ranks high.

    .. math:: \ell = -\sum_u \sum_{i \in D_u} q_{ui} \log \sigma(s(u, i))
        + (1 - q_{ui}) \log \sigma(-s(u, i)), \qquad q_{ui} = \sigma\big((t(u, i) + b) / a\big)

    over the distinct users of the batch. :math:`D_u` are ``k`` of the ``R`` items of the teacher's
    list, drawn once an epoch without replacement, with weights :math:`e^{-r / (T R)}` at place
    ``r``. Lee et al., *Collaborative Distillation for Top-N Recommendation*, ICDM 2019,
    https://arxiv.org/abs/1911.05276. Only the sampling that the teacher guides is here. Deviations:
    plain draws without replacement, where reimplementations keep the better of two draws; logits
    instead of the logarithm of a clipped probability.

    Args:
        lists: the teacher's lists ``[U, R]``, best first; ``-1`` pads.
        scores: the teacher's scores of the lists, ``[U, R]``.
        seen: training items of every user.
        k: items drawn for a user.
        temperature: ``T``, in lengths of the list.
        scale: ``a``; large values make the labels soft.
        shift: ``b``, added to the teacher's scores.
        generator: source of the draws, on the device of ``lists``.
    """

    def __init__(
        self,
        lists: Tensor,
        scores: Tensor,
        seen: UserItems,
        *,
        k: int = 50,
        temperature: float = 0.1,
        scale: float = 1.0,
        shift: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        check_lists(lists, seen, k)
        if scores.shape != lists.shape:
            raise ValueError(
                f"'scores' has shape {tuple(scores.shape)}, 'lists' {tuple(lists.shape)}; every "
                "listed item needs its score"
            )
        if not scores[lists >= 0].isfinite().all():
            raise ValueError("'scores' holds NaN or infinity; the teacher has diverged")
        self.seen, self.lists, self.k = seen, lists, k
        self.label = ((scores.detach() + shift) / scale).sigmoid()
        self.temperature, self.generator = temperature * lists.size(1), generator
        place = torch.arange(lists.size(1), device=lists.device)
        self.place = torch.where(lists >= 0, place, -1)
        self.drawn = self.place[:, :k].clone()
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the places of every list."""
        drawn = draw_listed(self.place, self.k, self.temperature, generator=self.generator)
        self.drawn.copy_(drawn)

    def fixed(self, epoch: int) -> None:
        """Nothing: draws replace one another in place."""

    def forward(self, out: Embeddings, batch: Triplets | Entities) -> Tensor:
        """Sum over the distinct users of the batch and their draws."""
        check_fits(out, self.seen)
        user, once = users_once(batch)
        place, owner = self.drawn[user], user.unsqueeze(1)
        real, place = (place >= 0) & once.unsqueeze(1), place.clamp(min=0)
        score = out.pairs(owner, self.lists[owner, place].clamp(min=0))
        return losses.soft_bce(score, self.label[owner, place], real)
