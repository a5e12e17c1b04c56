"""How far a student is from its teacher: shared items, order of the top, geometry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.consensus import ranks_in
from ccdgraph.ranking import BUDGET, Scorer, recommend_lists, user_chunks


def overlap(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Share of the teacher's top items that are among the student's, ``[n]``.

    .. math:: |S_u \cap T_u| / |T_u|

    Args:
        student: ids ``[n, K]``, in any order; ``-1`` pads.
        teacher: ids ``[n, K]``; ``-1`` pads. A user without any has overlap NaN.

    >>> overlap(torch.tensor([[3, 1, 2]]), torch.tensor([[1, 9, 3]]))
    tensor([0.6667], dtype=torch.float64)
    """
    found = ranks_in(student, teacher) < student.size(1)
    return found.sum(1).double() / (teacher >= 0).sum(1)


def kendall_tau(scores: Tensor, real: Tensor | None = None) -> Tensor:
    r"""Kendall's tau-a between the order of a list and the scores of its items, ``[n]``.

    .. math:: \tau = \frac{2}{K (K - 1)} \sum_{a < b} \mathrm{sign}(s_a - s_b)

    1 for scores that fall along the list, -1 for scores that rise; a tie counts 0. Kendall, *A New
    Measure of Rank Correlation*, Biometrika 1938, https://doi.org/10.1093/biomet/30.1-2.81.

    Args:
        scores: the student's scores of the teacher's list, best first ``[n, K]``.
        real: which places are not padding ``[n, K]``; a row with fewer than two is NaN.

    >>> kendall_tau(torch.tensor([[3.0, 1.0, 2.0]]))  # two pairs of three in order
    tensor([0.3333], dtype=torch.float64)
    """
    real = torch.ones_like(scores, dtype=torch.bool) if real is None else real
    sign = (scores.unsqueeze(2) - scores.unsqueeze(1)).sign().double()
    counts = (real.unsqueeze(2) & real.unsqueeze(1)).triu(1)
    return (sign * counts).sum((1, 2)) / counts.sum((1, 2))


def linear_cka(student: Tensor, teacher: Tensor) -> float:
    r"""Linear centred kernel alignment of two embeddings of the same entities, in [0, 1].

    .. math:: \frac{\lVert Y^\top X \rVert_F^2}{\lVert X^\top X \rVert_F \lVert Y^\top Y \rVert_F}

    for the tables with their column means taken off. 1 up to rotation and scale, whatever the
    widths; nothing of ``[N, N]`` is made. Kornblith et al., *Similarity of Neural Network
    Representations Revisited*, ICML 2019, https://arxiv.org/abs/1905.00414.

    Args:
        student: ``[N, dS]``.
        teacher: ``[N, dT]``.

    Returns:
        NaN where one of the two is constant.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    >>> round(linear_cka(x, 5 * x.flip(1) + 7), 6)
    1.0
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"'student' has {len(student)} rows, 'teacher' {len(teacher)}; both need one for each "
            "entity"
        )
    x, y = (table.double() - table.double().mean(0) for table in (student, teacher))
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


@dataclass(frozen=True)
class Agreement:
    """Means over users: share of common top items, and tau on the teacher's top."""

    overlap: float
    kendall_tau: float


@torch.no_grad()
def agreement(
    student: Scorer,
    teacher: Scorer,
    seen: UserItems,
    *,
    k: int = 20,
    budget: int = BUDGET,
) -> Agreement:
    """Rank agreement on the unseen items of every user; users without any are left out.

    Args:
        student: scorer over the same users and items as ``teacher``.
        teacher: the scorer whose top counts.
        seen: items that are left out.
        k: length of the lists.
        budget: bytes a chunk of scores and its copies may take.
    """
    sizes = (student.num_users, student.num_items), (teacher.num_users, teacher.num_items)
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"'student' scores {sizes[0]} (users, items), 'teacher' {sizes[1]}; grow the smaller"
        )
    shares, taus = [], []
    everyone = torch.arange(seen.num_users, device=seen.item.device)
    for chunk in user_chunks(everyone, student.num_items, budget=budget, copies=6):
        top = recommend_lists(teacher, chunk, k, seen)[1]
        own = recommend_lists(student, chunk, k, seen)[1]
        scores = student.scores(chunk)
        shares.append(overlap(own, top))
        taus.append(kendall_tau(scores.gather(1, top.clamp(min=0)), top >= 0))
    return Agreement(float(torch.cat(shares).nanmean()), float(torch.cat(taus).nanmean()))
