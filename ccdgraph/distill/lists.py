"""What methods that read a teacher's lists share: draws from a list and from what is not in it."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Entities, Triplets


def users_once(batch: Triplets | Entities) -> tuple[Tensor, Tensor]:
    """Users of a batch ascending, and a mask with one place of each; both ``[n]``.

    On the CPU they are distinct. Elsewhere they are as many as the batch has rows, as a step may
    not wait for the device to count them.

    >>> users_once(Triplets(torch.tensor([7, 2, 7]), *torch.zeros(2, 3)))
    (tensor([2, 7]), tensor([True, True]))
    """
    if isinstance(batch, Entities):
        return batch.index, torch.ones_like(batch.index, dtype=torch.bool)
    return each_once(batch.user)


def each_once(index: Tensor) -> tuple[Tensor, Tensor]:
    """``index`` ascending, and a mask with one place of each, as :func:`users_once` says."""
    if index.device.type == "cpu":
        distinct: Tensor = index.unique()
        return distinct, torch.ones_like(distinct, dtype=torch.bool)
    return sorted_once(index)


def sorted_once(user: Tensor) -> tuple[Tensor, Tensor]:
    """``user`` ascending, and the first place of each; both ``[n]``.

    >>> sorted_once(torch.tensor([7, 2, 7]))
    (tensor([2, 7, 7]), tensor([ True,  True, False]))
    """
    user = user.sort().values
    once = torch.ones_like(user, dtype=torch.bool)
    once[1:] = user[1:] != user[:-1]
    return user, once


def distinct(index: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct entries of ``index [n]``, which of them are real, and where each of ``index`` is.

    On the CPU all are real. Elsewhere they are filled up to ``n`` or to everything there is, as a
    step may not wait for the device to count them.

    Args:
        index: ids below ``size``, ``[n]``.
        size: how many there are.

    >>> distinct(torch.tensor([7, 2, 7]), 9)
    (tensor([2, 7]), tensor([True, True]), tensor([1, 0, 1]))
    """
    if index.device.type == "cpu":
        found, place = index.unique(return_inverse=True)
        return found, torch.ones_like(found, dtype=torch.bool), place
    return padded_distinct(index, size)


def padded_distinct(index: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`distinct` in a length that does not depend on the values.

    >>> padded_distinct(torch.tensor([7, 2, 7]), 9)
    (tensor([2, 7, 0]), tensor([ True,  True, False]), tensor([1, 0, 1]))
    >>> padded_distinct(torch.tensor([1, 1, 1]), 2)
    (tensor([0, 1]), tensor([False,  True]), tensor([1, 1, 1]))
    """
    if len(index) >= size:
        real = torch.zeros(size, dtype=torch.bool, device=index.device)
        return torch.arange(size, device=index.device), real.index_fill_(0, index, True), index
    ordered, order = index.sort()
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    slot = first.cumsum(0) - 1
    found = torch.zeros_like(index).scatter_(0, slot, ordered)
    place = torch.empty_like(index).scatter_(0, order, slot)
    return found, torch.arange(len(index), device=index.device) <= slot[-1:], place


def most_entries(seen: UserItems) -> list[int]:
    """The most entries that ``n`` rows can have, by ``n``, so that no step has to ask.

    >>> most_entries(UserItems(torch.tensor([0, 1, 4, 4]), torch.tensor([0, 0, 1, 2]), 3))
    [0, 3, 4, 4]
    """
    return [0, *seen.degree.sort(descending=True).values.cumsum(0).tolist()]


def transposed(seen: UserItems) -> UserItems:
    """Users of every item from the items of every user.

    >>> pairs = UserItems(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), 3)
    >>> transposed(pairs).indptr.tolist(), transposed(pairs).item.tolist()
    ([0, 1, 3, 3], [0, 0, 1])
    """
    everyone = torch.arange(seen.num_users, device=seen.item.device)
    order = torch.argsort(seen.item, stable=True)
    count = torch.bincount(seen.item, minlength=seen.num_items)
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    owner = torch.repeat_interleave(everyone, seen.degree)
    return UserItems(indptr, owner[order], seen.num_users)


def check_lists(lists: Tensor, seen: UserItems, k: int, name: str = "lists") -> None:
    """Refuse lists of other rows than ``seen``, of entries it lacks, or shorter than ``k``."""
    if lists.dim() != 2 or lists.size(0) != seen.num_users:
        raise ValueError(
            f"'{name}' has shape {tuple(lists.shape)}, expected one row for each of the "
            f"{seen.num_users} rows of 'seen'"
        )
    if not 1 <= k <= lists.size(1):
        raise ValueError(
            f"'{name}' has {lists.size(1)} entries a row, expected at least {k}; ask the teacher "
            "for longer lists"
        )
    if lists.numel() and int(lists.max()) >= seen.num_items:
        raise ValueError(
            f"'{name}' holds id {int(lists.max())}, 'seen' knows {seen.num_items}; both need the "
            "student's sizes"
        )


def check_fits(out: Embeddings, seen: UserItems) -> None:
    """Refuse a student that has other entities than the lists were made for."""
    if (out.num_users, out.num_items) != (seen.num_users, seen.num_items):
        raise ValueError(
            f"the lists are for {seen.num_users} users and {seen.num_items} items, the student has "
            f"{out.num_users} and {out.num_items}; ask the teacher again"
        )


def draw_listed(lists: Tensor, k: int, temperature: float, *, generator: torch.Generator) -> Tensor:
    r"""``k`` entries of every list in its order, the higher the likelier, ``[N, R] -> [N, k]``.

    Drawn without replacement with weights :math:`e^{-r / T}` at place :math:`r`, as the ``k``
    largest of :math:`-r / T` plus Gumbel noise. A list with fewer than ``k`` entries is taken
    whole. Places past ``k + 16 T``, which weigh less than :math:`10^{-6}` of some place that is
    left, are not looked at.

    Args:
        lists: ids, best first; ``-1`` pads at the end.
        k: draws a row.
        temperature: ``T``.
        generator: source of the draws, on the device of ``lists``.
    """
    lists = lists[:, : k + int(16 * temperature)]
    key = torch.empty(lists.shape, device=lists.device).exponential_(generator=generator).log_()
    place = torch.arange(lists.size(1), device=lists.device)
    key.add_(place / temperature).masked_fill_(lists < 0, float("inf"))
    chosen = key.topk(k, dim=1, largest=False).indices.sort(1).values
    return lists.gather(1, chosen)


def draw_rest(
    exclude: Tensor, num_rows: int, num_entries: int, size: int, *, generator: torch.Generator
) -> Tensor:
    """Distinct uniform entries outside the excluded ones for every row, ``[N, size]``.

    A row with fewer than ``size`` free entries has them all, and ``-1`` for the others. Ranks among
    the free entries are drawn by Floyd's algorithm (Bentley and Floyd, CACM 1987), all rows at
    once, and shifted past the excluded entries.

    Args:
        exclude: ascending unique keys ``row * num_entries + entry``.
        num_rows: ``N``.
        num_entries: entries are below it.
        size: draws a row.
        generator: source of the draws, on the device of ``exclude``.
    """
    device = exclude.device
    owner = torch.arange(num_rows, device=device) * num_entries
    first = torch.searchsorted(exclude, owner)
    free = num_entries - (torch.searchsorted(exclude, owner + num_entries) - first)
    rank = torch.full((num_rows, size), -1, device=device)
    for place in range(size):
        last = free - size + place  # the ranks 0 .. last are open now
        draw = torch.rand(num_rows, generator=generator, device=device, dtype=torch.float64)
        fresh = (draw * (last + 1)).long()
        taken = (rank[:, :place] == fresh.unsqueeze(1)).any(1)
        fresh = torch.where(taken, last, fresh)
        rank[:, place] = torch.where(last >= 0, fresh, -1)
    # row * num_entries + the number of free entries before each excluded one, ascending
    start = torch.searchsorted(exclude, exclude // num_entries * num_entries)
    before = exclude - torch.arange(len(exclude), device=device) + start
    below = torch.searchsorted(before, owner.unsqueeze(1) + rank, right=True) - first.unsqueeze(1)
    return torch.where(rank >= 0, rank + below, -1)


def listed_keys(lists: Tensor, seen: UserItems) -> Tensor:
    """Ascending unique keys ``row * num_items + item`` of the seen and the listed entries."""
    row = torch.arange(lists.size(0), device=lists.device).unsqueeze(1)
    key = (row * seen.num_items + lists)[lists >= 0]
    keys: Tensor = torch.cat([key, seen.keys()]).unique()
    return keys
