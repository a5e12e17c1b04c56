"""Rows of a CSR matrix in chunks of bounded length, so that no row keeps a device waiting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LENGTH = 256


@dataclass(frozen=True, eq=False)
class Chunks:
    """How the entries of every row are cut; all int32, made once for a matrix.

    A row of one chunk is summed as it is written. A longer one has a partial sum for each chunk,
    and those are added up afterwards, always in the same order.

    Args:
        begin: first entry of every chunk ``[C]``, longest chunks first.
        end: one past its last ``[C]``.
        target: the row it sums up, or ``num_rows`` plus the place of its partial sum, ``[C]``.
        row: rows that have partial sums ``[S]``.
        first: those of the ``s``-th such row are ``first[s]`` to ``first[s + 1]``, ``[S + 1]``.
        num_rows: rows of the matrix.

    >>> chunks = Chunks.of(torch.tensor([0, 5, 5, 7]), length=2)
    >>> chunks.begin.tolist(), chunks.target.tolist()  # row 0 in three parts, row 1 empty
    ([0, 2, 5, 4, 5], [3, 4, 2, 5, 1])
    """

    begin: Tensor
    end: Tensor
    target: Tensor
    row: Tensor
    first: Tensor
    num_rows: int

    @classmethod
    def of(cls, pointer: Tensor, *, length: int = LENGTH) -> Chunks:
        """Chunks of at most ``length`` entries, one at least for every row.

        Args:
            pointer: row pointer ``[num_rows + 1]``.
            length: most entries of a chunk.
        """
        pointer = pointer.long()
        num_rows, count = len(pointer) - 1, pointer.diff()
        parts = ((count + length - 1) // length).clamp(min=1)
        row = torch.repeat_interleave(torch.arange(num_rows, device=pointer.device), parts)
        turn = torch.arange(len(row), device=pointer.device) - (parts.cumsum(0) - parts)[row]
        begin = pointer[row] + turn * length
        end = torch.minimum(begin + length, pointer[row + 1])
        several = parts > 1
        partial = several[row]
        target = torch.where(partial, num_rows + partial.cumsum(0) - 1, row)
        order = (end - begin).argsort(descending=True, stable=True)
        split = several.nonzero().squeeze(1)
        first = torch.cat([split.new_zeros(1), parts[split].cumsum(0)])
        begin, end, target = (part[order].int() for part in (begin, end, target))
        return cls(begin, end, target, split.int(), first.int(), num_rows)

    @property
    def num_partial(self) -> int:
        """Partial sums of all rows that have any."""
        return len(self.begin) - (self.num_rows - len(self.row))
