"""Training trajectories of teachers, kept as top lists with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.lists import check_lists
from ccdgraph.ranking import BUDGET, Scorer, recommend_lists, topk, user_chunks


@dataclass(frozen=True)
class Trajectories:
    r"""Top lists of every teacher at every checkpoint, and what each entry weighs.

    Args:
        lists: unseen items ``[M, V, U, K]``, best first, oldest checkpoint first; ``-1`` pads.
        weight: importance of every entry ``[M, V, U, K]``.
    """

    lists: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, teachers: Sequence[Sequence[Scorer]], seen: UserItems, *, k: int = 100
    ) -> Trajectories:
        r"""Ask every checkpoint for its lists; place ``r`` weighs :math:`e^{-r / 10}`.

        Args:
            teachers: checkpoints of each teacher, oldest first, as many for every teacher.
            seen: items that are left out.
            k: length of the lists.
        """
        if len({len(checkpoints) for checkpoints in teachers}) != 1:
            raise ValueError("'teachers' have different numbers of checkpoints; keep equally many")
        user = torch.arange(seen.num_users, device=seen.item.device)
        lists = [_finite_lists(scorer, user, k, seen) for row in teachers for scorer in row]
        stacked = torch.stack(lists).unflatten(0, (len(teachers), -1))
        weight = (-torch.arange(k, device=stacked.device) / 10).exp()
        return cls(stacked, weight.expand(stacked.shape))


def check_trajectories(trajectories: Trajectories, seen: UserItems, k: int) -> None:
    """Refuse lists of one checkpoint, of other users or items, or shorter than ``k``."""
    lists, weight = trajectories.lists, trajectories.weight
    if lists.dim() != 4 or lists.size(1) < 2:
        raise ValueError(
            f"'trajectories' has lists of shape {tuple(lists.shape)}, expected [teachers, "
            "checkpoints, users, entries] with two checkpoints or more"
        )
    check_lists(lists[0, 0], seen, k, "trajectories")
    if lists.numel() and int(lists.max()) >= seen.num_items:
        raise ValueError(
            f"'trajectories' holds id {int(lists.max())}, 'seen' knows {seen.num_items} items"
        )
    if weight.shape != lists.shape or not weight.isfinite().all():
        raise ValueError("'trajectories' needs a finite weight for every entry of its lists")


def observed_lists(
    teacher: Scorer, seen: UserItems, *, k: int = 10, budget: int = BUDGET
) -> Tensor:
    """The ``k`` best training items of every user as the teacher orders them, ``[U, k]``.

    Args:
        teacher: scores the catalogue, an ensemble perhaps.
        seen: training items of every user; ``-1`` pads where there are fewer than ``k``.
        k: length of the lists.
        budget: bytes a chunk of scores and its copies may take.
    """
    lists = []
    everyone = torch.arange(seen.num_users, device=seen.item.device)
    for chunk in user_chunks(everyone, seen.num_items, budget=budget):
        scores = teacher.scores(chunk)
        entries = seen.entries(chunk)
        only = torch.full_like(scores, float("-inf"))
        only[entries] = scores[entries]
        best, item = topk(only, k)
        if best.isnan().any() or (best == float("inf")).any():
            raise ValueError("'teacher' returned NaN or infinite scores; train it again")
        lists.append(item.masked_fill(best == float("-inf"), -1))
    return torch.cat(lists)


def _finite_lists(scorer: Scorer, user: Tensor, k: int, seen: UserItems) -> Tensor:
    score, item = recommend_lists(scorer, user, k, seen)
    if (score == float("inf")).any():
        raise ValueError("a teacher returned infinite scores; it has diverged, train it again")
    return item
