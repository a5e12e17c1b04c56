"""Labels of a block by a teacher that has not seen it."""

from __future__ import annotations

import torch

from ccdgraph.data.interactions import UserItems
from ccdgraph.data.stream import Stream
from ccdgraph.distill.labels.soft import SoftLabels
from ccdgraph.ranking import BUDGET, Scorer, recommend_lists


def label_block(
    teacher: Scorer, stream: Stream, index: int, *, version: str, k: int = 100, budget: int = BUDGET
) -> SoftLabels:
    """The teacher's ``k`` best items of every user of block ``index``, before it learns the block.

    A teacher that had trained on the block would repeat the hard labels in the soft ones. Nothing
    of the block is read but which users train in it: what a user trained on in earlier blocks is
    left out of the lists, while an item of this block stays wherever the teacher ranks it. A user
    who is new in the block is unknown to the teacher and has no label.

    Args:
        teacher: as it was after the last update before the block.
        stream: the block is in.
        index: of the block, 1 or above.
        version: of the teacher.
        k: length of the lists; the whole catalogue where that is smaller.
        budget: bytes that blocks of scores may take.

    Raises:
        ValueError: the teacher has grown to the entities of the block, so it has seen it.
    """
    if not 1 <= index < len(stream):
        raise ValueError(
            f"'index' is {index}, expected 1 to {len(stream) - 1}; no teacher comes before block 0"
        )
    before = stream[index - 1]
    known, size = (before.num_users, before.num_items), (teacher.num_users, teacher.num_items)
    if size[0] > known[0] or size[1] > known[1]:
        raise ValueError(
            f"'teacher' covers {size[0]} users and {size[1]} items, before block {index} there "
            f"were {known[0]} and {known[1]}; label the block before the teacher grows"
        )
    past = [part.train for part in stream.blocks[:index]]
    seen = UserItems.from_interactions(past, *known).within(*size)
    user = torch.unique(stream[index].train.user)
    user = user[user < teacher.num_users]
    if len(user) == 0:
        empty = user.new_empty(0, 1)
        return SoftLabels.from_lists(user, empty, empty.float(), version=version, block=index)
    scores, lists = recommend_lists(teacher, user, min(k, teacher.num_items), seen, budget=budget)
    return SoftLabels.from_lists(user, lists, scores, version=version, block=index)
