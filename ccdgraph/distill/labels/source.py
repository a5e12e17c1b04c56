"""Which labels a student reads at a block: those of a teacher of some age."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ccdgraph.data.stream import Block
from ccdgraph.distill.labels.soft import StoredLabels
from ccdgraph.distill.labels.store import read_labels, read_manifest


def teacher_before(block: int, *, lag: int = 0, freeze: int | None = None) -> int:
    r"""The block that the teacher of ``block`` learnt last.

    .. math:: \max\big(0, \min(k - 1, F) - L\big)

    with block :math:`k`, lag :math:`L` and the block :math:`F` after which a frozen teacher stops
    learning. With both, it stopped :math:`L` blocks earlier.

    Args:
        block: 1 or above; no teacher comes before the base block.
        lag: blocks that the teacher is behind.
        freeze: last block that it learns; ``None`` for one that is updated with the stream.

    >>> [teacher_before(k, lag=1) for k in (1, 2, 3)], [teacher_before(k, freeze=0) for k in (1, 2)]
    ([0, 0, 1], [0, 0])
    """
    if block < 1 or lag < 0 or (freeze is not None and freeze < 0):
        raise ValueError(
            f"'block' is {block}, 'lag' {lag} and 'freeze' {freeze}; expected a block of at least "
            "1, and numbers of at least 0"
        )
    last = block - 1 if freeze is None else min(block - 1, freeze)
    return max(0, last - lag)


def version_after(teacher: str, learnt: int) -> str:
    """The version of ``teacher`` once it has learnt block ``learnt``.

    >>> version_after("teacher", 3)
    'teacher-3'
    """
    return f"{teacher}-{learnt}"


@dataclass(frozen=True)
class StoreReader:
    """A label store as a student reads it: one teacher, of one age.

    Args:
        folder: of the store.
        teacher: its name; ``None`` takes the only one that the store has.
        lag: blocks that the teacher is behind, as in :func:`teacher_before`.
        freeze: see ``lag``.
        data: what the reader's data set is told by (:func:`~ccdgraph.distill.labels.identity`);
            ``None`` does not compare.
    """

    folder: str | Path
    teacher: str | None = None
    lag: int = 0
    freeze: int | None = None
    data: Mapping[str, str] | None = None

    def read(self, block: int) -> StoredLabels:
        """The labels for block ``block``.

        Raises:
            ValueError: the store has none of that version, is damaged or of another data set, or
                has several teachers and none is named.
        """
        learnt = teacher_before(block, lag=self.lag, freeze=self.freeze)
        version = version_after(self._teacher(), learnt)
        return read_labels(self.folder, version, block, data=self.data)

    def __call__(self, block: Block) -> tuple[Tensor, Tensor]:
        """Scores and lists for every user known at ``block``, ``[U, K]`` each, on its device.

        Raises:
            ValueError: as :meth:`read`; or the teacher knew entities that ``block`` does not.
        """
        labels = self.read(block.index)
        if labels.num_users > block.num_users or labels.num_items > block.num_items:
            raise ValueError(
                f"the labels of '{labels.version}' cover {labels.num_users} users and "
                f"{labels.num_items} items, block {block.index} has {block.num_users} and "
                f"{block.num_items}; name the store of this data set"
            )
        everyone = torch.arange(block.num_users, device=block.train.user.device)
        return labels.lists(everyone)

    def coverage(self, block: Block) -> float:
        """Share of the users who train in ``block`` that have any label.

        Raises:
            ValueError: as :meth:`read`.
        """
        return self.read(block.index).coverage(block.train.user.unique())

    def _teacher(self) -> str:
        if self.teacher is not None:
            return self.teacher
        versions = read_manifest(self.folder, self.data).versions
        names = {version.rpartition("-")[0] for version in versions}
        if len(names) != 1:
            held = ", ".join(sorted(names)) or "none"
            raise ValueError(
                f"'{self.folder}' has labels of these teachers: {held}; name one as 'teacher'"
            )
        return names.pop()


def labels_of(
    folder: str | Path, block: int, version: str | None, *, data: Mapping[str, str] | None = None
) -> StoredLabels:
    """The labels for ``block`` by ``version``, or by the only version that has any.

    Args:
        folder: of the store.
        block: the labels are for.
        version: of the teacher; ``None`` where there is no choice.
        data: as of :func:`read_labels`.

    Raises:
        ValueError: no version has labels for the block, or several and none is named.
    """
    if version is None:
        held = [part.version for part in read_manifest(folder, data).parts if part.block == block]
        if len(held) != 1:
            names = ", ".join(held) or "none"
            raise ValueError(
                f"'{folder}' has labels for block {block} by these teacher versions: {names}; "
                + ("name one" if held else "write some first")
            )
        version = held[0]
    return read_labels(folder, version, block, data=data)
