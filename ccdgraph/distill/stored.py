"""Terms that learn from a teacher's lists as they are stored, with missing labels left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph.distill.lists import users_once
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.train import Term


class ListwiseKD(Term):
    r"""The teacher's distribution over its list, by cross-entropy.

    .. math:: \ell = -\sum_u \sum_{k=1}^{K_u} p_{uk} \log
        \frac{e^{s(u, \pi_{uk})}}{\sum_{m=1}^{K_u} e^{s(u, \pi_{um})}}, \qquad
        p_{uk} = \frac{e^{t_{uk} / T}}{\sum_{m=1}^{K_u} e^{t_{um} / T}}

    over the distinct users of the batch that have a list :math:`\pi_u` with scores :math:`t_u`.
    Cao et al., *Learning to Rank: From Pairwise Approach to Listwise Approach* (ListNet), ICML
    2007, with the teacher in the place of judgements. Deviation: a temperature for the teacher
    alone, since scores of an ensemble of ranks differ by little.

    Args:
        lists: the teacher's lists, ``[U, K]``, as
            :meth:`~ccdgraph.distill.labels.StoredLabels.lists` gives them; ``-1`` pads, and a
            missing user is a row of it.
        scores: the teacher's scores of the lists, ``[U, K]``.
        temperature: ``T``; small values sharpen the teacher's distribution.

    >>> from ccdgraph.nn import Embeddings
    >>> term = ListwiseKD(torch.tensor([[0, 1], [-1, -1]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    >>> out = Embeddings(torch.zeros(2, 1), torch.zeros(2, 1))
    >>> float(term(out, Entities(torch.tensor([0, 1]))))  # log 2 for user 0
    0.6931...
    """

    def __init__(self, lists: Tensor, scores: Tensor, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' is {temperature}, expected a number above 0")
        self.real, scores = _checked(lists, scores)
        self.item = lists.clamp(min=0)
        self.target = _hidden(scores / temperature, self.real).softmax(1).mul(self.real)

    def forward(self, out: Embeddings, batch: Triplets | Entities) -> Tensor:
        """Sum over the distinct users of the batch that have labels."""
        user, once, score = _listed_scores(out, batch, self.item)
        log_share = _hidden(score, self.real[user]).log_softmax(1)
        return -(self.target[user] * log_share).masked_fill(~once, 0.0).sum()


class PointwiseKD(Term):
    r"""The teacher's probability of every listed pair, by binary cross-entropy.

    .. math:: \ell = -\sum_u \sum_{k=1}^{K_u} q_{uk} \log \sigma(s(u, \pi_{uk}))
        + (1 - q_{uk}) \log \sigma(-s(u, \pi_{uk})), \qquad
        q_{uk} = \min\big(1, c\, \sigma((t_{uk} + b) / a)\big)

    over the distinct users of the batch that have labels. The labels of :class:`CD
    <ccdgraph.distill.cd.CD>` on the whole list instead of a sample of it: Lee et al.,
    *Collaborative Distillation for Top-N Recommendation*, ICDM 2019,
    https://arxiv.org/abs/1911.05276.

    Args:
        lists: the teacher's lists, ``[U, K]``; ``-1`` pads, and a missing user is a row of it.
        scores: the teacher's scores of the lists, ``[U, K]``.
        scale: ``a``; large values make the labels soft.
        shift: ``b``, added to the teacher's scores.
        gain: ``c``, the label scaling of External Large Foundation Model (WWW 2025 companion,
            https://arxiv.org/abs/2502.17494), for labels that lie close to 0.
    """

    def __init__(
        self,
        lists: Tensor,
        scores: Tensor,
        *,
        scale: float = 1.0,
        shift: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("gain", gain)):
            if not value > 0:
                raise ValueError(f"'{name}' is {value}, expected a number above 0")
        self.real, scores = _checked(lists, scores)
        self.item = lists.clamp(min=0)
        self.label = ((scores + shift) / scale).sigmoid().mul(gain).clamp(max=1)

    def forward(self, out: Embeddings, batch: Triplets | Entities) -> Tensor:
        """Sum over the labelled pairs of the distinct users of the batch."""
        user, once, score = _listed_scores(out, batch, self.item)
        loss = functional.binary_cross_entropy_with_logits(
            score, self.label[user], reduction="none"
        )
        return loss.masked_fill(~(self.real[user] & once), 0.0).sum()


def _checked(lists: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Which entries are real, and the teacher's scores with 0 in place of padding, detached."""
    if lists.dim() != 2 or scores.shape != lists.shape:
        raise ValueError(
            f"'scores' has shape {tuple(scores.shape)}, 'lists' {tuple(lists.shape)}; expected "
            "[U, K] of both"
        )
    real = lists >= 0
    scores = scores.detach().masked_fill(~real, 0.0)
    if not scores.isfinite().all():
        raise ValueError("'scores' holds NaN or infinity; the teacher has diverged")
    return real, scores


def _hidden(scores: Tensor, real: Tensor) -> Tensor:
    """``scores`` with padding that has no share in a softmax.

    Finite, so that the softmax of a row without labels is defined.
    """
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min / 4)


def _listed_scores(
    out: Embeddings, batch: Triplets | Entities, item: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Users of the batch ``[n]``, which rows count ``[n, 1]``, and scores of the lists ``[n, K]``.

    Every user counts once.
    """
    if out.num_users != len(item):
        raise ValueError(
            f"the lists are for {len(item)} users, the student has {out.num_users}; ask the store "
            "for a row for every user"
        )
    user, once = users_once(batch)
    return user, once.unsqueeze(1), out.pairs(user.unsqueeze(1), item[user])
