"""The sparse product on a CUDA device, as two Triton kernels; imported only where it is used."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ccdgraph.data.chunks import Chunks


@triton.jit  # type: ignore[untyped-decorator]
def _sum_chunk(  # type: ignore[no-untyped-def]
    begin,
    end,
    target,
    column,
    weight,
    x,
    out,
    partial,
    num_rows,
    STRIDE: tl.constexpr,  # noqa: N803
    DIM: tl.constexpr,  # noqa: N803
    ENTRIES: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
):
    """Weighted sum of the rows of ``x`` that one chunk names, ``WIDTH`` of its columns."""
    chunk = tl.program_id(0)
    place = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = place < DIM
    last = tl.load(end + chunk)
    total = tl.zeros([ENTRIES, WIDTH], tl.float32)
    for start in range(tl.load(begin + chunk), last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        real = entry < last
        row = tl.load(column + entry, mask=real, other=0).to(
            tl.int64
        )  # times STRIDE is beyond 2^31
        factor = tl.load(weight + entry, mask=real, other=0.0)
        mask = real[:, None] & inside[None, :]
        total += factor[:, None] * tl.load(x + row[:, None] * STRIDE + place, mask=mask, other=0.0)
    result = tl.sum(total, 0)
    row = tl.load(target + chunk).to(tl.int64)
    if row < num_rows:
        tl.store(out + row * DIM + place, result, mask=inside)
    else:
        tl.store(partial + (row - num_rows) * DIM + place, result, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _sum_partial(  # type: ignore[no-untyped-def]
    row,
    first,
    partial,
    out,
    DIM: tl.constexpr,  # noqa: N803
    ENTRIES: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
):
    """Sum of the partial sums of one row, ``WIDTH`` of its columns."""
    split = tl.program_id(0)
    place = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = place < DIM
    last = tl.load(first + split + 1)
    total = tl.zeros([ENTRIES, WIDTH], tl.float32)
    for start in range(tl.load(first + split), last, ENTRIES):
        entry = start + tl.arange(0, ENTRIES)
        mask = (entry < last)[:, None] & inside[None, :]
        at = partial + entry[:, None].to(tl.int64) * DIM + place
        total += tl.load(at, mask=mask, other=0.0)
    tl.store(out + tl.load(row + split).to(tl.int64) * DIM + place, tl.sum(total, 0), mask=inside)


def tile(dim: int) -> tuple[int, int]:
    """Entries and columns that a program of one warp takes at once, powers of two.

    The columns of a row as far as they go, and so many rows that each thread has up to eight loads
    of 16 bytes on their way.
    """
    width = min(128, triton.next_power_of_2(dim))
    return max(8, min(32, 1024 // width)), width


def chunked_product(chunks: Chunks, column: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """A CSR matrix times ``x``, the rows of the matrix cut into ``chunks``.

    No atomics, so two runs give the same bits, and nothing waits for the device.

    Args:
        chunks: of the row pointer.
        column: column of every entry, int32 ``[nnz]``.
        weight: its value, float32 ``[nnz]``.
        x: float32 ``[columns, D]``.
    """
    x = x if x.stride(1) == 1 else x.contiguous()
    dim = x.size(1)
    out = x.new_empty(chunks.num_rows, dim)
    if out.numel() == 0:
        return out
    partial = x.new_empty(chunks.num_partial, dim)
    entries, width = tile(dim)
    shape = {"DIM": dim, "ENTRIES": entries, "WIDTH": width, "num_warps": 1}
    blocks, of = triton.cdiv(dim, width), chunks
    with torch.cuda.device_of(x):
        _sum_chunk[len(of.begin), blocks](
            of.begin,
            of.end,
            of.target,
            column,
            weight,
            x,
            out,
            partial,
            of.num_rows,
            STRIDE=x.stride(0),
            **shape,
        )
        if len(of.row):
            _sum_partial[len(of.row), blocks](of.row, of.first, partial, out, **shape)
    return out
