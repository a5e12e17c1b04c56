"""What teachers hand over to one student: lists, scores, embeddings and trajectories, on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.consensus import consensus as agree
from ccdgraph.distill.teacher import Ensemble, TeacherLists, teacher_lists
from ccdgraph.distill.trajectory import Trajectories
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.ranking import Scorer, recommend_lists


class Knowledge:
    """A teacher as distillation methods read it, with the student that they are made for.

    Everything is made when it is first asked for and kept; a shorter list is cut from a longer one.

    Args:
        teacher: one scorer or an ensemble; ``None`` where only ``stored`` lists are known.
        seen: training items of every user, which no list holds.
        dim: width of the student's embeddings.
        rng: the generator of a use, on the device of ``seen``.
        users: users that a method with batches of its own goes through; everyone by default.
        items: the same of items.
        asked: the only users whom the teacher ranks, ascending; others have no list and stand on
            none. By default all.
        batch_size: size of those batches.
        trajectories: lists along the training of every teacher, for the methods that follow them.
        stored: scores and ids of lists that were asked for before, ``[U, K]`` each.
    """

    def __init__(
        self,
        teacher: Scorer | None,
        seen: UserItems,
        *,
        dim: int,
        rng: Callable[[str], torch.Generator],
        users: Tensor | None = None,
        items: Tensor | None = None,
        asked: Tensor | None = None,
        batch_size: int = 1024,
        trajectories: Trajectories | None = None,
        stored: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        sizes = (seen.num_users, seen.num_items)
        if teacher is not None and (teacher.num_users, teacher.num_items) != sizes:
            raise ValueError(
                f"'teacher' has {teacher.num_users} users and {teacher.num_items} items, the data "
                f"{sizes[0]} and {sizes[1]}; train it on the same data, or grow it"
            )
        device = seen.item.device
        self._teacher, self.seen, self.dim, self.rng = teacher, seen, dim, rng
        self.users = torch.arange(seen.num_users, device=device) if users is None else users
        self.items = torch.arange(seen.num_items, device=device) if items is None else items
        self.asked = asked
        self.batch_size, self._trajectories, self._stored = batch_size, trajectories, stored
        self._lists: TeacherLists | None = None
        self._scored: tuple[Tensor, Tensor] | None = None

    def teacher(self, why: str) -> Scorer:
        """The scorer itself.

        Raises:
            ValueError: only lists are known, and ``why`` needs more.
        """
        if self._teacher is None:
            raise ValueError(f"{why} needs a teacher to ask, not stored lists; name 'teachers'")
        return self._teacher

    def lists(self, k: int) -> TeacherLists:
        """The ``k`` best unseen items of every user and unseen users of every item.

        A catalogue or a community smaller than ``k`` gives shorter lists.
        """
        teacher = self.teacher("the item side")
        if self._lists is None or max(_width(self._lists)) < k:
            self._lists = teacher_lists(teacher, self.seen, k=k, user=self.asked)
        return TeacherLists(self._lists.items[:, :k], self._lists.users[:, :k])

    def entities(self, side: Literal["user", "item"]) -> Tensor:
        """Users who have a list, or items, for batches of their own."""
        if side == "item":
            return self.items
        if self.asked is None:
            return self.users
        return self.users[self.items_of(1)[self.users, 0] >= 0]

    def items_of(self, k: int, consensus: float = 0.0) -> Tensor:
        """The ``k`` best unseen items of every user, ``[U, k]``.

        Args:
            k: length of the lists.
            consensus: temperature of the weights of places by which the last lists of all teachers
                agree (:func:`~ccdgraph.distill.consensus.consensus`); 0 asks the teacher itself.
        """
        if consensus:
            along = Trajectories.of_lists(self.trajectories().lists[:, -1:], consensus)
            return agree(along.lists[:, 0], along.weight[:, 0], k)
        if self._teacher is None or self._scored is not None:
            return self.scored(k)[1]
        return self.lists(k).items

    def scored(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores and ids of the ``k`` best unseen items of every user, ``[U, k]`` each."""
        if self._teacher is None:
            return self._cut(k)
        if self._scored is None or self._scored[1].size(1) < k:
            everyone = torch.arange(self.seen.num_users, device=self.seen.item.device)
            user = everyone if self.asked is None else self.asked
            length = min(k, self.seen.num_items)
            score, item = recommend_lists(self._teacher, user, length, self.seen)
            score, item = _for_all(score, item, user, self.seen.num_users)
            if (score == float("inf")).any():
                raise ValueError("the teacher returned infinite scores; it has diverged")
            self._scored = score, item
        score, item = self._scored
        return score[:, :k], item[:, :k]

    def _cut(self, k: int) -> tuple[Tensor, Tensor]:
        if self._stored is None:
            raise ValueError("there is neither a teacher nor stored lists to learn from")
        score, item = self._stored
        if item.size(1) < k:
            raise ValueError(
                f"the stored lists have {item.size(1)} entries, a method asks for {k}; store "
                "longer lists or lower its length"
            )
        return score[:, :k], item[:, :k]

    def embeddings(self) -> Embeddings:
        """The teacher's embeddings; those of an ensemble stand side by side.

        Each table of a member of an ensemble is scaled to rows of mean square length 1, so that
        none outweighs the others.

        Raises:
            ValueError: the teacher, or a member, has none, or scores pairs by a network.
        """
        teacher = self.teacher("a method that regresses embeddings")
        members = teacher.members if isinstance(teacher, Ensemble) else [teacher]
        tables = [
            member for member in members if isinstance(member, Embeddings) and not member.network
        ]
        if len(tables) < len(members):
            raise ValueError(
                "a teacher has no embeddings that score by inner products; use a method that "
                "learns from lists, such as 'rrd'"
            )
        if len(tables) == 1:
            return tables[0]
        user, item = (
            torch.cat([_level(table) for table in side], dim=1)
            for side in ([t.user for t in tables], [t.item for t in tables])
        )
        return Embeddings(user, item)

    def trajectories(self) -> Trajectories:
        """Lists along the training of every teacher.

        Raises:
            ValueError: they were not kept.
        """
        if self._trajectories is None:
            raise ValueError(
                "the method follows teachers along their training, but their lists were not kept; "
                "train the teachers in this run"
            )
        return self._trajectories


def _for_all(score: Tensor, item: Tensor, user: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Lists of ``user`` as rows of all users, empty for the others."""
    every_score = score.new_full((num, score.size(1)), float("-inf"))
    every_item = item.new_full((num, item.size(1)), -1)
    return every_score.index_copy_(0, user, score), every_item.index_copy_(0, user, item)


def _width(lists: TeacherLists) -> tuple[int, int]:
    return lists.items.size(1), lists.users.size(1)


def _level(table: Tensor) -> Tensor:
    """Rows of mean square length 1; a table of zeros stays one."""
    length = table.square().sum(1).mean().sqrt()
    level: Tensor = table / torch.where(length > 0, length, 1.0)
    return level
