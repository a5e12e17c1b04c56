"""Batches: triplets with sampled negatives, pairs with labels, and entities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions, is_in
from ccdgraph.nn.backbone import Embeddings

# Rounds of redrawing rejected negatives. Few are left even where 90 % of the items are excluded
# (0.9**50, half a percent); those are drawn exactly, which costs a pass over all exclusions.
_ROUNDS = 50


@dataclass(frozen=True)
class Triplets:
    """Users ``[B]``, an observed item of each ``[B]`` and sampled negatives ``[B, n]``."""

    user: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Pairs:
    """Users ``[B]``, items ``[B]`` and soft labels in [0, 1] ``[B]``."""

    user: Tensor
    item: Tensor
    label: Tensor


@dataclass(frozen=True)
class Entities:
    """Distinct users or items ``[B]``; the term that reads them knows which."""

    index: Tensor


class Batches(Protocol):
    """A source of batches: one call to :meth:`epoch` is one pass."""

    def epoch(self, epoch: int, current: Callable[[], Embeddings]) -> Iterator[Any]:
        """The batches of pass ``epoch``; ``current()`` gives the model's embeddings as they are."""
        ...


class TripletBatches:
    """Observed pairs in random order, each with uniform negatives redrawn every epoch.

    Args:
        interactions: the observed pairs; repeated pairs stay repeated.
        num_items: size of the catalogue negatives come from.
        exclude: ascending keys ``user * num_items + item`` that are never a negative
            (``UserItems.keys``), ``[n]``.
        batch_size: triplets a batch.
        num_negatives: negatives a positive.
        generator: source of order and negatives, on the device of ``interactions``.

    >>> events = Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]))
    >>> source = TripletBatches(events, 3, torch.tensor([0, 1]), generator=torch.Generator())
    >>> next(source.epoch(0)).negative.tolist()  # item 2 alone is left
    [[2], [2]]
    """

    def __init__(
        self,
        interactions: Interactions,
        num_items: int,
        exclude: Tensor,
        *,
        batch_size: int = 1024,
        num_negatives: int = 1,
        generator: torch.Generator,
    ) -> None:
        if len(interactions) == 0:
            raise ValueError("'interactions' is empty; a block needs training rows to learn from")
        self.interactions, self.num_items, self.exclude = interactions, num_items, exclude
        self.batch_size, self.num_negatives = batch_size, num_negatives
        self.generator = generator

    def epoch(
        self, epoch: int, current: Callable[[], Embeddings] | None = None
    ) -> Iterator[Triplets]:
        """Every pair once, in a new order and with new negatives."""
        user, positive = self.interactions.user, self.interactions.item
        order = torch.randperm(len(user), generator=self.generator, device=user.device)
        user, positive = user[order], positive[order]
        negative = draw_negatives(
            user, self.num_items, self.num_negatives, self.exclude, generator=self.generator
        )
        pieces = (column.split(self.batch_size) for column in (user, positive, negative))
        for parts in zip(*pieces, strict=True):
            yield Triplets(*parts)


class EntityBatches:
    """Users or items in random order, each at most once in a batch (terms may rely on it).

    Args:
        index: entity ids ``[n]``.
        batch_size: entities a batch.
        generator: source of the order, on the device of ``index``.

    Raises:
        ValueError: an entity is listed twice.
    """

    def __init__(
        self, index: Tensor, *, batch_size: int = 1024, generator: torch.Generator
    ) -> None:
        repeated = len(index) - len(torch.unique(index))
        if repeated:
            raise ValueError(f"'index' lists {repeated} entities more than once; make it unique")
        self.index, self.batch_size, self.generator = index, batch_size, generator

    def epoch(
        self, epoch: int, current: Callable[[], Embeddings] | None = None
    ) -> Iterator[Entities]:
        """Every listed entity once, in a new order."""
        order = torch.randperm(len(self.index), generator=self.generator, device=self.index.device)
        for part in self.index[order].split(self.batch_size):
            yield Entities(part)


def draw_negatives(
    user: Tensor, num_items: int, num_negatives: int, exclude: Tensor, *, generator: torch.Generator
) -> Tensor:
    """Uniform items outside ``exclude`` for every user, ``[B] -> [B, n]``.

    A user whose exclusions are the whole catalogue gets any item.

    Args:
        user: user of each row ``[B]``.
        num_items: items are drawn from ``0 .. num_items - 1``.
        num_negatives: draws a row.
        exclude: ascending keys ``user * num_items + item`` never to be drawn.
        generator: source of the draws, on the device of ``user``.
    """
    size = (len(user) * num_negatives,)
    owner = user.repeat_interleave(num_negatives) * num_items
    item = torch.randint(num_items, size, generator=generator, device=user.device)
    wrong = is_in(owner + item, exclude).nonzero().squeeze(1)
    for _ in range(_ROUNDS):
        if wrong.numel() == 0:
            break
        fresh = torch.randint(num_items, wrong.shape, generator=generator, device=user.device)
        item[wrong] = fresh
        wrong = wrong[is_in(owner[wrong] + fresh, exclude)]
    else:
        item[wrong] = _draw_free(owner[wrong], num_items, exclude, generator=generator)
    return item.view(len(user), num_negatives)


def _draw_free(
    owner: Tensor, num_items: int, exclude: Tensor, *, generator: torch.Generator
) -> Tensor:
    """A free item of each row without rejection: the one of a random rank among the free.

    Args:
        owner: ``user * num_items`` of each row ``[n]``.
        num_items: size of the catalogue.
        exclude: as in :func:`draw_negatives`.
        generator: source of the draws.
    """
    first = torch.searchsorted(exclude, owner)
    free = num_items - (torch.searchsorted(exclude, owner + num_items) - first)
    size = torch.where(free > 0, free, num_items)
    draw = torch.rand(len(owner), generator=generator, device=owner.device, dtype=torch.float64)
    rank = (draw * size).long()
    # user * num_items + the number of free items before each excluded one, ascending
    start = torch.searchsorted(exclude, exclude // num_items * num_items)
    before = exclude - torch.arange(len(exclude), device=exclude.device) + start
    excluded_below = torch.searchsorted(before, owner + rank, right=True) - first
    return torch.where(free > 0, rank + excluded_below, rank)
