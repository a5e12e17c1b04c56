"""Sparse products whose gradient needs no atomics: the transpose is there already."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ccdgraph.data.chunks import Chunks
from ccdgraph.data.interactions import UserItems

SWITCH = "CCDGRAPH_TRITON"


def csr(pointer: Tensor, column: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse CSR tensor of int32 indices, half the traffic and every backend's fast path."""
    return torch.sparse_csr_tensor(
        pointer.int(), column.int(), weight, size=size, check_invariants=False
    )


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix that stays the same over many products, with its transpose.

    On a CUDA device float32 products go through the kernels of :mod:`ccdgraph.data.kernels` where
    :func:`without_kernels` has nothing against it, and through torch's CSR product otherwise.

    Args:
        matrix: CSR of int32 indices ``[N, M]``.
        transposed: its transpose, likewise ``[M, N]``.

    >>> identity = torch.eye(2).to_sparse_csr()
    >>> Product(identity, identity)(torch.tensor([[1.0], [2.0]])).tolist()
    [[1.0], [2.0]]
    """

    matrix: Tensor
    transposed: Tensor

    @cached_property
    def chunks(self) -> tuple[Chunks, Chunks]:
        """Rows of both matrices in chunks."""
        forward = Chunks.of(self.matrix.crow_indices())
        same = self.transposed is self.matrix
        return forward, forward if same else Chunks.of(self.transposed.crow_indices())

    def __call__(self, x: Tensor) -> Tensor:
        """``[M, D] -> [N, D]``; gradients flow to ``x``."""
        fast = x.is_cuda and x.dtype == torch.float32 and without_kernels(x.device) is None
        return sparse_product(self.matrix, self.transposed, x, self.chunks if fast else None)


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
    def _product(self) -> Product:
        lists, size = self.lists, (self.lists.num_users, self.lists.num_items)
        row = torch.repeat_interleave(torch.arange(size[0], device=lists.item.device), lists.degree)
        weight = 1.0 / lists.degree[row].float()
        order = torch.argsort(lists.item, stable=True)
        pointer = torch.bincount(lists.item, minlength=size[1]).cumsum(0)
        pointer = torch.cat([pointer.new_zeros(1), pointer])
        return Product(
            csr(lists.indptr, lists.item, weight, size),
            csr(pointer, row[order], weight[order], size[::-1]),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """``[num_items, D] -> [num_users, D]``."""
        return self._product(x)


def sparse_product(
    matrix: Tensor, transposed: Tensor, x: Tensor, chunks: tuple[Chunks, Chunks] | None = None
) -> Tensor:
    """``matrix @ x``; its gradient goes through ``transposed``, which is there already.

    Args:
        matrix: CSR ``[N, M]``.
        transposed: its transpose ``[M, N]``.
        x: ``[M, D]``.
        chunks: of both matrices, for the kernels of a CUDA device; ``None`` for torch's product.
    """
    plan = chunks or (None, None)
    out: Tensor = _SparseProduct.apply(x, matrix, transposed, *plan)  # type: ignore[no-untyped-call]
    return out


class _SparseProduct(torch.autograd.Function):
    """``matrix @ x`` with gradient to ``x`` alone, through a transpose that is already there."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor,
        transposed: Tensor,
        chunks: Chunks | None,
        other: Chunks | None,
    ) -> Tensor:
        ctx.transposed, ctx.chunks = transposed, other
        return _product(matrix, x, chunks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _product(ctx.transposed, grad.contiguous(), ctx.chunks), *(None,) * 4


def _product(matrix: Tensor, x: Tensor, chunks: Chunks | None) -> Tensor:
    if chunks is None:
        return matrix.to(x.dtype) @ x
    from ccdgraph.data.kernels import chunked_product

    return chunked_product(chunks, matrix.col_indices(), matrix.values(), x)


def without_kernels(device: torch.device) -> str | None:
    """Why sparse products on ``device`` go without Triton kernels; ``None`` where they do not."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    return _missing(device)


@cache
def _missing(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "no CUDA device"
    if find_spec("triton") is None:
        return "no Triton"
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (7, 0):
        return "a device that Triton has no code for"
    compiler = os.environ.get("CC")
    if not any(shutil.which(name) for name in (compiler, "gcc", "clang") if name):
        return "no C compiler, which Triton needs"
    return None
