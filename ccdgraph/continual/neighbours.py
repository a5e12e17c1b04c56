"""Old neighbours: entities joined by an edge, and entities of one kind with similar rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import UserItems
from ccdgraph.data.sparse import RowMean


@dataclass(frozen=True)
class Neighbours:
    """Old neighbours: of users among items, of items among users, and within each kind."""

    user_item: RowMean
    item_user: RowMean
    user_user: RowMean
    item_item: RowMean

    @classmethod
    def of(cls, graph: BipartiteGraph, *, mean_degree: float = 10.0) -> Neighbours:
        """Edges of ``graph``, and :func:`similar` entities on each of its sides.

        A ``mean_degree`` of 0 leaves those out: nobody is compared with anybody.
        """
        sides = graph.user_items, graph.item_users
        join = partial(similar, mean_degree=mean_degree) if mean_degree else _alone
        return cls(*(RowMean(lists) for lists in sides), *(RowMean(join(lists)) for lists in sides))

    @cached_property
    def means(self) -> RowMean:
        """All four over ``[users | items]``, one below the other, so that one product does."""
        num_users = self.user_item.lists.num_users
        kinds = [
            (self.user_user.lists, 0),
            (self.item_user.lists, 0),
            (self.user_item.lists, num_users),
            (self.item_item.lists, num_users),
        ]
        degree = torch.cat([lists.degree for lists, _ in kinds])
        member = torch.cat([lists.item + offset for lists, offset in kinds])
        indptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        return RowMean(UserItems(indptr, member, len(degree) // 2))

    def places(self, node: Tensor) -> Tensor:
        """Rows of :attr:`means` of nodes ``[A]``: with users and with items, ``[A, 2]``."""
        num_nodes = self.user_item.lists.num_users + self.item_user.lists.num_users
        return torch.stack([node, node + num_nodes], 1)


def _alone(lists: UserItems) -> UserItems:
    num, nobody = lists.num_users, lists.item[:0]
    return UserItems(lists.indptr.new_zeros(num + 1), nobody, num)


@torch.no_grad()
def similar(lists: UserItems, *, mean_degree: float = 10.0, budget: int = 128 * 2**20) -> UserItems:
    """Entities of one kind joined where the cosine of their binary rows passes a threshold.

    The threshold, in (.1, .9) and a multiple of .001, is the one whose mean degree comes closest to
    ``mean_degree``; nobody is its own neighbour. Rows are taken in chunks, and of their pairs about
    twice as many as are wanted are kept.

    Args:
        lists: rows to compare (CSR).
        mean_degree: neighbours wanted on average over the entities with a row.
        budget: bytes a chunk of cosines may take.
    """
    device, num = lists.item.device, lists.num_users
    size = (num, lists.num_items)
    unit = lists.degree.clamp(min=1).float().rsqrt()
    owner = torch.repeat_interleave(torch.arange(num, device=device), lists.degree)
    matrix = torch.sparse_csr_tensor(
        lists.indptr, lists.item, unit[owner], size=size, check_invariants=False
    )
    wanted = mean_degree * float((lists.degree > 0).sum())
    key = step = torch.empty(0, dtype=torch.int64, device=device)
    least = 101
    for chunk in torch.arange(num, device=device).split(max(1, budget // (4 * max(size)))):
        dense = torch.zeros(lists.num_items, len(chunk), device=device)
        row, item = lists.entries(chunk)
        dense[item, row] = unit[chunk[row]]
        cosine = matrix @ dense
        cosine[chunk, torch.arange(len(chunk), device=device)] = 0.0
        other, row = (cosine > least / 1000 - 1e-3).nonzero(as_tuple=True)
        key = torch.cat([key, chunk[row] * num + other])
        step = torch.cat([step, (cosine[other, row] * 1000).long().clamp_(max=900)])
        above = torch.bincount(step, minlength=901).flip(0).cumsum(0).flip(0)[101:901]
        # One that lets more than twice as many through is never closer than .9, the last.
        least = max(least, min(101 + int((above > 2 * wanted).sum()), 900))
        key, step = key[step >= least], step[step >= least]
    threshold = least + int((above[least - 101 :] - wanted).abs().argmin())
    key = key[step >= threshold].sort().values
    count = torch.bincount(key // num, minlength=num)
    return UserItems(torch.cat([count.new_zeros(1), count.cumsum(0)]), key % num, num)
