"""FIRE: a graph filter with ageing edges, recomputed for each block and never trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual.neighbours import similar
from ccdgraph.continual.strategy import OneStage
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.sparse import RowMean
from ccdgraph.data.stream import Block
from ccdgraph.ranking import user_chunks

_OVERSAMPLING, _ROUNDS = 16, 20  # of the subspace iteration


@dataclass(frozen=True)
class FIREConfig:
    r"""Settings of :class:`FIRE`.

    Args:
        graph: filter all edges so far (``"cumulative"``) or the block's own (``"block"``).
        rate: how fast an edge ages, :math:`\gamma`; it weighs :math:`e^{-\gamma}` a block later.
        rank: singular vectors of the low-pass filter ``k``.
        low_pass: weight of the low-pass filter, :math:`\alpha_0`.
        collaborative: weight of both collaborative filters, :math:`\alpha_1`.
        similar_users: weight of similar users' rows, :math:`\alpha_2`.
        similar_items: weight of items similar to the user's, :math:`\alpha_3`.
        mean_degree: similar entities wanted on average.
    """

    graph: Literal["cumulative", "block"] = "cumulative"
    rate: float = 0.1
    rank: int = 128
    low_pass: float = 0.2
    collaborative: float = 0.2
    similar_users: float = 0.2
    similar_items: float = 0.2
    mean_degree: float = 10.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.rate < 0:
            raise ValueError(
                f"'rank' is {self.rank} and 'rate' {self.rate}; FIRE needs at least 1 singular "
                "vector and edges that do not grow with age"
            )


class FIRE(OneStage):
    r"""Scores by filters of the aged interactions; nothing is trained.

    With the weights :math:`R_{ui} = e^{-\gamma (t - t_{ui})}` of the pairs, their normalised form
    :math:`\tilde R = D_U^{-1/2} R D_I^{-1/2}` and its first ``k`` right singular vectors ``V``,

    .. math:: S = \alpha_1 \big( R \tilde R^\top \tilde R
        + \alpha_0 R D_I^{-1/2} V V^\top D_I^{1/2} \big) + \alpha_2 S_U R + \alpha_3 R S_I

    :math:`S_U` averages the rows of similar users and :math:`S_I` the columns of similar items.

    Xia et al., *FIRE: Fast Incremental Recommendation with Graph Signal Processing*, WWW 2022,
    https://doi.org/10.1145/3485447.3512108. Differs from the paper: age counts in blocks, since a
    stream may have no times; of a repeated pair the largest weight counts; similarity is that of
    rows of interactions, since there are no features; no matrix of users times items is made.

    Args:
        config: all settings.
        seed: root of the generator of the singular vectors.
    """

    stage = "filter"

    def __init__(self, config: FIREConfig = FIREConfig(), *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.graph: BipartiteGraph | None = None

    def serve(self, block: Block) -> Filter:
        """Age the edges, add the block's, and filter anew."""
        graph = self._arrive(block)
        served = self._filter(graph, block.index)
        self.graph = graph
        return served

    def state(self) -> dict[str, Tensor]:
        """The last block that was learnt; all else follows from the blocks."""
        return {"cursor": torch.tensor([self.index])}

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Take up :meth:`state`; ``blocks`` run up to the last that was learnt, or further."""
        self.index, self.graph, self.served = int(state["cursor"][0]), None, None
        for block in blocks[: self.index + 1]:
            self.graph = self._arrive(block)
        if self.graph is not None:
            self.served = self._filter(self.graph, self.index)

    def _arrive(self, block: Block) -> BipartiteGraph:
        sizes = (block.num_users, block.num_items)
        if self.graph is None or self.config.graph == "block":
            return BipartiteGraph.from_interactions(block.train, *sizes)
        return self.graph.grow(block.train, *sizes, decay=math.exp(-self.config.rate))

    def _filter(self, graph: BipartiteGraph, index: int) -> Filter:
        draws = rng(self.seed, index, "fire")
        return Filter(graph, self.config, singular_vectors(graph, self.config.rank, draws))


@dataclass(frozen=True, eq=False)
class Filter:
    """The scores of :class:`FIRE`, made for a few users at a time.

    Args:
        graph: aged pairs.
        config: weights of the filters.
        vectors: right singular vectors ``V`` ``[I, k]``.
    """

    graph: BipartiteGraph
    config: FIREConfig
    vectors: Tensor

    @property
    def num_users(self) -> int:
        """Users it can score."""
        return self.graph.num_users

    @property
    def num_items(self) -> int:
        """Items it scores."""
        return self.graph.num_items

    @torch.no_grad()
    def scores(self, user: Tensor) -> Tensor:
        """Scores of every item, ``[B] -> [B, I]``; few users at once where there are many nodes."""
        chunks = user_chunks(user, self.graph.num_nodes, copies=6)
        return torch.cat([self._scores(chunk) for chunk in chunks])

    def _scores(self, user: Tensor) -> Tensor:
        config, place = self.config, torch.arange(len(user), device=user.device)
        chosen = torch.zeros(self.num_users, len(user), device=user.device)
        chosen[user, place] = 1.0
        row, (_, root) = self._sum_rows(chosen), self._roots
        # An item without edges is in no row, so that its infinite factor would meet zeros alone.
        inverse = root.clamp(min=torch.finfo(root.dtype).tiny).reciprocal()
        smooth = root * (self.vectors @ (self.vectors.T @ (row * inverse)))
        total = config.collaborative * (two_steps(self.graph, row) + config.low_pass * smooth)
        near_user, near_item = self._similar
        if config.similar_users:
            who, other = near_user.lists.entries(user)
            others = torch.zeros_like(chosen)
            others[other, place[who]] = 1.0 / near_user.lists.degree[user][who]
            total += config.similar_users * self._sum_rows(others)
        if config.similar_items:
            total += config.similar_items * near_item(row)
        return total.T

    def _sum_rows(self, user: Tensor) -> Tensor:
        r"""Weighted sums of users' rows, :math:`R^\top x`: ``[U, B] -> [I, B]``."""
        by_user, by_item = self._roots
        empty = user.new_zeros(self.num_items, user.shape[1])
        return by_item * self.graph.propagate(torch.cat([by_user * user, empty]))[self.num_users :]

    @cached_property
    def _roots(self) -> tuple[Tensor, Tensor]:
        """Square roots of the degrees of users and items, ``[U, 1]`` and ``[I, 1]``."""
        user, item = self.graph.degree.sqrt().unsqueeze(1).split([self.num_users, self.num_items])
        return user, item

    @cached_property
    def _similar(self) -> tuple[RowMean, RowMean]:
        """Similar users and similar items."""
        degree = self.config.mean_degree
        sides = (self.graph.user_items, self.graph.item_users)
        user, item = (RowMean(similar(side, mean_degree=degree)) for side in sides)
        return user, item


def two_steps(graph: BipartiteGraph, item: Tensor) -> Tensor:
    r"""From items to users and back, :math:`\tilde R^\top \tilde R x`: ``[I, B] -> [I, B]``.

    >>> from ccdgraph.data.interactions import Interactions
    >>> pairs = Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]))
    >>> two_steps(BipartiteGraph.from_interactions(pairs, 1, 2), torch.tensor([[1.0], [0.0]]))
    tensor([[0.5000],
            [0.5000]])
    """
    x = torch.cat([item.new_zeros(graph.num_users, item.shape[1]), item])
    return graph.propagate(graph.propagate(x))[graph.num_users :]


@torch.no_grad()
def singular_vectors(graph: BipartiteGraph, rank: int, generator: torch.Generator) -> Tensor:
    r"""The first right singular vectors of :math:`\tilde R`, ``[I, k]``, by subspace iteration.

    Args:
        graph: its normalised pairs are the matrix.
        rank: vectors ``k``; no more than there are items.
        generator: source of the first guess, on the CPU.
    """
    width = min(rank + _OVERSAMPLING, graph.num_items)
    basis = torch.randn(graph.num_items, width, generator=generator).to(graph.device)
    basis = torch.linalg.qr(basis)[0]
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(two_steps(graph, basis))[0]
    _, within = torch.linalg.eigh(basis.T @ two_steps(graph, basis))
    vectors: Tensor = basis @ within[:, -rank:]
    return vectors
