"""A reservoir: a uniform sample of a stream of pairs, of fixed size, in flat tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions


def fill(
    memory: Mapping[str, Tensor], rows: Interactions, size: int, *, generator: torch.Generator
) -> dict[str, Tensor]:
    r"""The reservoir after ``rows`` have passed: each row so far is in it with equal probability.

    Every row draws a key once, and those with the ``size`` largest keys stay. That is a uniform
    sample without replacement of all rows so far, as classic reservoir sampling gives (Vitter, ACM
    Transactions on Mathematical Software 1985), in one sort instead of a loop. The cost depends on
    the block and on ``size`` alone.

    Args:
        memory: ``user``, ``item`` and ``key``, ``[n]`` each with ``n`` at most ``size``; or empty.
        rows: what arrives.
        size: pairs to keep, at most.
        generator: source of the keys, on the device of ``rows``.

    >>> rows = Interactions(torch.arange(9), torch.arange(9))
    >>> len(fill({}, rows, 4, generator=torch.Generator())["user"])
    4
    """
    key = torch.rand(len(rows), generator=generator, device=rows.user.device, dtype=torch.float64)
    columns = {"user": rows.user, "item": rows.item, "key": key}
    if memory:
        columns = {name: torch.cat([memory[name], value]) for name, value in columns.items()}
    kept = columns["key"].topk(min(size, len(columns["key"]))).indices.sort().values
    return {name: value[kept] for name, value in columns.items()}


def held(memory: Mapping[str, Tensor]) -> Interactions:
    """The pairs of a reservoir that :func:`fill` has made."""
    return Interactions(memory["user"], memory["item"])
