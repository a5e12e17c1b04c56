r"""Ranking metrics: per user from one hit matrix, and over a stream from one accuracy matrix.

``hits [n, K]`` says which places of the lists hold a relevant item, ``relevant [n]`` is
:math:`|G_u|`, the number of distinct relevant items. Every metric returns float64 ``[n]``, 0 for a
user without relevant items; :math:`h_{ur} \in \{0, 1\}` is the hit at place :math:`r = 1..K`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems, is_in


def hit_matrix(lists: Tensor, user: Tensor, truth: UserItems) -> tuple[Tensor, Tensor]:
    """Where the lists hit, and how many relevant items each user has.

    Args:
        lists: item ids, best first, ``[n, K]``; padding (below 0) never hits.
        user: whose lists they are, ``[n]``.
        truth: relevant items of every user, each counted once.

    Returns:
        ``hits``, bool ``[n, K]``, and ``relevant``, int64 ``[n]``.

    >>> truth = UserItems(torch.tensor([0, 0, 2]), torch.tensor([1, 3]), 4)
    >>> hit_matrix(torch.tensor([[3, 0, -1]]), torch.tensor([1]), truth)
    (tensor([[ True, False, False]]), tensor([2]))
    """
    key = user[:, None] * truth.num_items + lists
    listed = (lists >= 0) & (lists < truth.num_items)
    return is_in(key, truth.keys()) & listed, truth.degree[user]


def recall(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    r"""Share of a user's relevant items among the first ``k``.

    .. math:: \frac{1}{|G_u|} \sum_{r \le k} h_{ur}

    >>> recall(torch.tensor([[True, False]]), torch.tensor([4]), 2)
    tensor([0.2500], dtype=torch.float64)
    """
    return _first(hits, k).sum(1) / relevant.clamp(min=1)


def truncated_recall(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    r"""Recall that ``k`` places can reach; the released CCD code calls it P@K.

    .. math:: \frac{1}{\min(k, |G_u|)} \sum_{r \le k} h_{ur}

    >>> truncated_recall(torch.tensor([[True, False]]), torch.tensor([4]), 2)
    tensor([0.5000], dtype=torch.float64)
    """
    return _first(hits, k).sum(1) / relevant.clamp(min=1, max=k)


def ndcg(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    r"""Normalised discounted cumulative gain of binary relevance.

    .. math:: \sum_{r \le k} \frac{h_{ur}}{\log_2(r + 1)} \Big/
        \sum_{r \le \min(k, |G_u|)} \frac{1}{\log_2(r + 1)}

    Järvelin and Kekäläinen, *Cumulated gain-based evaluation of IR techniques*, TOIS 2002,
    https://doi.org/10.1145/582415.582418.

    >>> ndcg(torch.tensor([[False, True]]), torch.tensor([1]), 2)  # 1 / log2(3)
    tensor([0.6309], dtype=torch.float64)
    """
    gain = _first(hits, k)
    place = torch.arange(1, k + 1, device=hits.device, dtype=torch.float64)
    discount = 1 / torch.log2(place + 1)
    return gain @ discount / discount.cumsum(0)[relevant.clamp(min=1, max=k) - 1]


def hit_rate(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    r"""Whether any relevant item is among the first ``k``.

    .. math:: \max_{r \le k} h_{ur}

    >>> hit_rate(torch.tensor([[False, True]]), torch.tensor([3]), 2)
    tensor([1.], dtype=torch.float64)
    """
    return _first(hits, k).amax(1)


def mrr(hits: Tensor, relevant: Tensor, k: int) -> Tensor:
    r"""Reciprocal rank of the first relevant item, 0 when it is not among the first ``k``.

    .. math:: \max_{r \le k} \frac{h_{ur}}{r}

    >>> mrr(torch.tensor([[False, True]]), torch.tensor([3]), 2)
    tensor([0.5000], dtype=torch.float64)
    """
    first = _first(hits, k)
    return (first / torch.arange(1, k + 1, device=hits.device)).amax(1)


def _first(hits: Tensor, k: int) -> Tensor:
    """The first ``k`` columns as numbers, float64 ``[n, k]``."""
    if not 1 <= k <= hits.size(1):
        raise ValueError(f"'k' is {k}, expected 1 to {hits.size(1)}, the length of the lists")
    return hits[:, :k].double()


@dataclass(frozen=True)
class AccuracyMatrix:
    r"""Accuracy :math:`M_{kj}` on block ``j`` after learning block ``k``; NaN where not measured.

    Every summary is NaN when it needs an entry that is. With ``base=False`` block 0 is left out of
    the means. Protocol ``"next"`` fills the diagonal only, so it has a learning average and nothing
    else. Lee et al., *Continual Collaborative Distillation for Recommender System*, KDD 2024,
    https://arxiv.org/abs/2405.19046; forgetting: Chaudhry et al., *Riemannian Walk for Incremental
    Learning*, ECCV 2018, https://arxiv.org/abs/1801.10112; backward transfer: Lopez-Paz and
    Ranzato, *Gradient Episodic Memory for Continual Learning*, NeurIPS 2017,
    https://arxiv.org/abs/1706.08840.

    Args:
        values: float64 ``[T, T]``.

    >>> matrix = AccuracyMatrix.empty(2).set(0, 0, 0.2).set(1, 0, 0.1).set(1, 1, 0.3)
    >>> round(matrix.learning_average(1), 3), round(matrix.retained_average(1), 3)
    (0.25, 0.2)
    """

    values: Tensor

    @classmethod
    def empty(cls, num_blocks: int) -> Self:
        """Nothing measured yet."""
        return cls(torch.full((num_blocks, num_blocks), float("nan"), dtype=torch.float64))

    def set(self, learnt: int, tested: int, value: float) -> Self:
        """A new matrix with one entry replaced; this one does not change."""
        values = self.values.clone()
        values[learnt, tested] = value
        return type(self)(values)

    def learning_average(self, k: int, *, base: bool = True) -> float:
        r"""Plasticity :math:`LA_k`: mean over :math:`j \le k` of :math:`M_{jj}`."""
        return float(self.values.diagonal()[int(not base) : k + 1].mean())

    def retained_average(self, k: int, *, base: bool = True) -> float:
        r"""Stability :math:`RA_k`: mean over :math:`j \le k` of :math:`M_{kj}`."""
        return float(self.values[k, int(not base) : k + 1].mean())

    def h_mean(self, k: int, *, base: bool = True) -> float:
        r"""Harmonic mean :math:`2 LA_k RA_k / (LA_k + RA_k)`, 0 when both are."""
        learning = self.learning_average(k, base=base)
        retained = self.retained_average(k, base=base)
        total = learning + retained
        return 2 * learning * retained / total if total else 0.0

    def forgetting(self, k: int, *, base: bool = True) -> float:
        r"""Mean over :math:`j < k` of :math:`\max_{j \le l < k} M_{lj} - M_{kj}`."""
        first = int(not base)
        drops = [self.values[j:k, j].max() - self.values[k, j] for j in range(first, k)]
        return float(torch.stack(drops).mean()) if drops else float("nan")

    def backward_transfer(self, k: int, *, base: bool = True) -> float:
        r"""Mean over :math:`j < k` of :math:`M_{kj} - M_{jj}`."""
        past = slice(int(not base), k)
        return float((self.values[k, past] - self.values.diagonal()[past]).mean())
