"""Teachers: an ensemble that scores by mean reciprocal-power ranks, and the lists it hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.ranking import BUDGET, Scorer, by_chunks, mask_seen
from ccdgraph.topk import topk

_POWER = -0.05


class Ensemble:
    r"""Several scorers as one, by the mean of a slowly falling function of their ranks.

    .. math:: s_T(u, i) = \frac1M \sum_{m=1}^{M} (1 + r_m(u, i))^{-0.05}

    with :math:`r_m` the number of items that member ``m`` scores strictly higher. Ranks make
    members of different kinds and scales comparable. Lee et al., *Continual Collaborative
    Distillation*, KDD 2024, https://arxiv.org/abs/2405.19046.

    Args:
        members: scorers over the same users and items.

    >>> from ccdgraph.nn import Embeddings
    >>> member = Embeddings(torch.ones(1, 1), torch.tensor([[5.0], [9.0]]))
    >>> Ensemble([member]).scores(torch.tensor([0])).tolist()  # 2**-0.05, 1
    [[0.9659..., 1.0]]
    """

    def __init__(self, members: Sequence[Scorer]) -> None:
        sizes = {(member.num_users, member.num_items) for member in members}
        if len(sizes) != 1:
            raise ValueError(
                f"'members' cover {sorted(sizes)} (users, items), expected one size; grow them"
            )
        self.members = list(members)
        self.num_users, self.num_items = sizes.pop()

    def scores(self, user: Tensor) -> Tensor:
        """Mean rank weight of every item, ``[B] -> [B, I]``; highest is best."""
        total: Tensor | None = None
        for member in self.members:
            weight = rank_weights(member.scores(user))
            total = weight if total is None else total.add_(weight)
        assert total is not None
        return total.div_(len(self.members))


def rank_weights(scores: Tensor) -> Tensor:
    """``(1 + rank)**-0.05`` of every entry within its row; equal scores share the better rank.

    Args:
        scores: finite values ``[B, I]``.

    Raises:
        ValueError: a score is NaN.
    """
    nan = scores.isnan()
    recording = scores.is_cuda and torch.cuda.is_current_stream_capturing()
    if not recording and nan.any():
        raise ValueError("teacher scores hold NaN; the teacher has diverged, train it again")
    position = torch.arange(1, scores.size(1) + 1, device=scores.device, dtype=torch.float32)
    weight = position.pow(_POWER)
    if scores.device.type != "cpu":
        out = _by_search(scores, weight)
        return out.masked_fill_(nan, float("nan")) if recording else out
    ordered, order = _sort(-scores)
    out = torch.empty(scores.shape)
    out.scatter_(1, order, weight.expand(scores.shape))
    equal = ordered[:, 1:] == ordered[:, :-1]
    tied = equal.any(1).nonzero().squeeze(1)
    if tied.numel():
        # Within a run of equal scores the place of its first is the rank of all.
        place = torch.arange(scores.size(1)).repeat(len(tied), 1)
        place[:, 1:][equal[tied]] = 0
        first = place.cummax(1).values
        out[tied] = torch.empty_like(out[tied]).scatter_(1, order[tied], weight[first])
    return out


def _by_search(scores: Tensor, weight: Tensor) -> Tensor:
    """``weight`` at the rank of every entry, without a wait for the device."""
    ordered, order = scores.neg().sort(dim=1)
    # The first of a run of equal scores: neighbours look for it on the same path.
    first = torch.searchsorted(ordered, ordered)
    return torch.empty(scores.shape, device=scores.device).scatter_(1, order, weight[first])


def _sort(values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row ascending, with the order; the order within equal values is not specified."""
    # NumPy's vectorised sorts take a fifth of the time of torch's on a CPU.
    array = values.detach().numpy()
    order = torch.from_numpy(array.argsort(axis=1))
    array.sort(axis=1)
    return torch.from_numpy(array), order


@dataclass(frozen=True)
class TeacherLists:
    """The best unseen items of every user and the best users of every item, best first.

    Args:
        items: item ids ``[U, K]``, ``-1`` where a user has fewer than ``K`` unseen items.
        users: user ids ``[I, K]``, ``-1`` where fewer than ``K`` users have not seen the item.
    """

    items: Tensor
    users: Tensor


@torch.no_grad()
def teacher_lists(
    teacher: Scorer,
    seen: UserItems,
    *,
    k: int,
    k_users: int | None = None,
    user: Tensor | None = None,
    budget: int = BUDGET,
) -> TeacherLists:
    """Both kinds of lists in one pass over the users, in chunks.

    Ties go to the smaller id. The item side keeps a running top ``k_users`` while the chunks pass,
    so no matrix of users by items exists.

    Args:
        teacher: the scorer to ask.
        seen: pairs that are left out on both sides.
        k: length of the user side's lists.
        k_users: length of the item side's lists; ``k`` by default.
        user: the only users to ask about, ascending: others get empty lists and stand on none. By
            default all.
        budget: bytes a chunk of scores and its copies may take.
    """
    device = seen.item.device
    everyone = torch.arange(teacher.num_users, device=device) if user is None else user
    k_users = min(k if k_users is None else k_users, teacher.num_users)
    best = torch.full((teacher.num_items, 0), 0.0, device=device)
    users = torch.empty((teacher.num_items, 0), dtype=torch.int64, device=device)

    def ask(chunk: Tensor) -> Tensor:
        nonlocal best, users
        scores = mask_seen(teacher.scores(chunk).clone(), chunk, seen)
        listed = topk(scores, min(k, teacher.num_items))
        if listed[0].isnan().any() or (listed[0] == float("inf")).any():
            raise ValueError("'teacher' returned NaN or infinite scores; train it again")
        # Earlier chunks come first in a row and hold smaller ids, so ties fall to the smaller id.
        pool = torch.cat([best, scores.T], dim=1)
        owner = torch.cat([users, chunk.expand(teacher.num_items, -1)], dim=1)
        value, place = topk(pool, min(k_users, pool.size(1)))
        best, users = value, owner.gather(1, place)
        return _padded(*listed)

    lists = by_chunks(ask, everyone, teacher.num_items, budget=budget, copies=8)
    items = torch.cat(lists)
    if user is not None:
        items = items.new_full((teacher.num_users, items.size(1)), -1).index_copy_(0, user, items)
    return TeacherLists(items, _padded(best, users))


def _padded(value: Tensor, index: Tensor) -> Tensor:
    return index.masked_fill(value == float("-inf"), -1)
