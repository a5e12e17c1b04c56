"""Training trajectories of teachers, kept as top lists with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.lists import check_lists
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.ranking import BUDGET, Scorer, recommend_lists, user_chunks
from ccdgraph.topk import topk


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
        return cls.of_lists(torch.stack(lists).unflatten(0, (len(teachers), -1)))

    @classmethod
    def of_lists(cls, lists: Tensor, temperature: float = 10.0) -> Trajectories:
        """Lists ``[M, V, U, K]`` with the weights ``exp(-r / temperature)`` of their places."""
        if not temperature > 0:
            raise ValueError(f"'temperature' is {temperature}, expected a number above 0")
        weight = (-torch.arange(lists.size(3), device=lists.device) / temperature).exp()
        return cls(lists, weight.expand(lists.shape))


class Snapshots:
    """Top lists along one training, few and evenly spaced however long it lasts.

    Every ``stride``-th epoch is kept; when twice as many are held as are wanted, every other one is
    dropped and the stride doubles.

    Args:
        seen: items that are left out.
        num: checkpoints wanted, the final one included.
        k: length of the lists.

    >>> from ccdgraph.nn import Embeddings
    >>> seen = UserItems(torch.tensor([0, 0]), torch.empty(0, dtype=torch.int64), 3)
    >>> look = Snapshots(seen, num=3, k=1)
    >>> for epoch in range(9):
    ...     look(Embeddings(torch.ones(1, 1), torch.eye(3)[:, [epoch // 4]]))
    >>> look.finish(Embeddings(torch.ones(1, 1), torch.eye(3)[:, [2]]), best_epoch=8)
    >>> look.lists.flatten().tolist()
    [0, 1, 2]
    """

    def __init__(self, seen: UserItems, *, num: int = 4, k: int = 100) -> None:
        if num < 2:
            raise ValueError(f"a trajectory of {num} checkpoints leads nowhere; keep 2 or more")
        self.seen, self.num, self.k = seen, num, min(k, seen.num_items)
        self.stride, self.epoch = 1, 0
        self.kept: dict[int, Tensor] = {}
        self.lists: Tensor | None = None

    def __call__(self, out: Scorer) -> None:
        """Look at the model after an epoch."""
        if self.epoch % self.stride == 0:
            self.kept[self.epoch] = self._ask(out)
            if len(self.kept) >= 2 * self.num:
                self.stride *= 2
                self.kept = {e: x for e, x in self.kept.items() if e % self.stride == 0}
        self.epoch += 1

    def beside(
        self, validate: Callable[[Embeddings], float] | None
    ) -> Callable[[Embeddings], float]:
        """``validate`` for :func:`~ccdgraph.train.fit`, looking first; ``None`` keeps the last."""

        def look(out: Embeddings) -> float:
            self(out)
            return float(self.epoch) if validate is None else validate(out)

        return look

    def finish(self, final: Scorer, best_epoch: int) -> None:
        """Choose ``lists [V, U, K]``, oldest first; a training that was too short repeats some.

        Args:
            final: the model as it is used.
            best_epoch: the epoch whose weights it has.
        """
        own = self._ask(final)
        before = [epoch for epoch in self.kept if epoch < best_epoch] or [0]
        wanted = [before[len(before) * v // (self.num - 1)] for v in range(self.num - 1)]
        self.lists = torch.stack([*(self.kept.get(epoch, own) for epoch in wanted), own])
        self.kept = {}

    def _ask(self, scorer: Scorer) -> Tensor:
        user = torch.arange(self.seen.num_users, device=self.seen.item.device)
        return _finite_lists(scorer, user, self.k, self.seen)


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
