"""Sparse products whose gradient needs no atomics: the transpose is there already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems


@dataclass(frozen=True, eq=False)
class RowMean:
    """Mean over ragged rows as a sparse product, forward and backward without atomics.

    Args:
        lists: the members of every row (CSR).

    >>> lists = UserItems(torch.tensor([0, 2, 2]), torch.tensor([0, 2]), 3)
    >>> RowMean(lists)(torch.tensor([[1.0], [5.0], [3.0]])).tolist()  # an empty row gives 0
    [[2.0], [0.0]]
    """

    lists: UserItems

    @cached_property
    def _matrices(self) -> tuple[Tensor, Tensor]:
        lists, size = self.lists, (self.lists.num_users, self.lists.num_items)
        row = torch.repeat_interleave(torch.arange(size[0], device=lists.item.device), lists.degree)
        weight = 1.0 / lists.degree[row].float()
        order = torch.argsort(lists.item, stable=True)
        pointer = torch.bincount(lists.item, minlength=size[1]).cumsum(0)
        pointer = torch.cat([pointer.new_zeros(1), pointer])
        matrix = torch.sparse_csr_tensor(
            lists.indptr, lists.item, weight, size=size, check_invariants=False
        )
        flipped = torch.sparse_csr_tensor(
            pointer, row[order], weight[order], size=size[::-1], check_invariants=False
        )
        return matrix, flipped

    def __call__(self, x: Tensor) -> Tensor:
        """``[num_items, D] -> [num_users, D]``."""
        return sparse_product(*self._matrices, x)


def sparse_product(matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
    """``matrix @ x``; its gradient goes through ``transposed``, which is there already."""
    out: Tensor = _SparseProduct.apply(x, matrix, transposed)  # type: ignore[no-untyped-call]
    return out


class _SparseProduct(torch.autograd.Function):
    """``matrix @ x`` with gradient to ``x`` alone, through a transpose that is already there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix.to(x.dtype) @ x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed.to(grad.dtype) @ grad.contiguous(), None, None
