"""Backbones: two embedding tables and one way to propagate them over a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.subgraph import Subgraph
from ccdgraph.nn.pair import PairNetwork


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What a backbone makes of a graph, and all that losses, evaluation and distillation read.

    Args:
        user: served user embeddings ``[U, D]``.
        item: served item embeddings ``[I, D]``; the score of a pair is the inner product, unless
            there is a ``network``.
        layers: outputs of the single layers, each ``[U + I, D']``, for layer-wise methods.
        posterior: mean and log-variance of the user codes ``[U, H]`` each, of a variational model.
        ids: of a sampled subgraph, the users and the items that the rows belong to, ascending;
            ``None`` where row ``u`` is user ``u``.
        network: what scores a pair of rows where that is no inner product.

    >>> out = Embeddings(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    >>> out.scores(torch.tensor([0])).tolist()
    [[11.0, 2.0]]
    """

    user: Tensor
    item: Tensor
    layers: tuple[Tensor, ...] = ()
    posterior: tuple[Tensor, Tensor] | None = None
    ids: tuple[Tensor, Tensor] | None = None
    network: PairNetwork | None = None

    @property
    def num_users(self) -> int:
        """Number of users ``U``."""
        return self.user.shape[0]

    @property
    def num_items(self) -> int:
        """Number of items ``I``."""
        return self.item.shape[0]

    def scores(self, user: Tensor) -> Tensor:
        """Scores of every item for the listed users, ``[B] -> [B, I]``."""
        if self.ids is not None:
            raise ValueError("a sampled subgraph does not score all items; embed the whole graph")
        return self.block(self.user[user], self.item)

    def block(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of all pairs of embeddings, ``[B, D], [N, D] -> [B, N]``."""
        return user @ item.T if self.network is None else self.network.block(user, item)

    def pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of single pairs; ``user`` and ``item`` broadcast, ``[...] -> [...]``."""
        ours, theirs = self.user_rows(user), self.item_rows(item)
        return (ours * theirs).sum(-1) if self.network is None else self.network(ours, theirs)

    def user_rows(self, user: Tensor) -> Tensor:
        """Embeddings of users by id, of a sampled subgraph those it was drawn around."""
        return rows(self.user, user if self.ids is None else _place(self.ids[0], user))

    def item_rows(self, item: Tensor) -> Tensor:
        """Embeddings of items by id, of a sampled subgraph those it was drawn around."""
        return rows(self.item, item if self.ids is None else _place(self.ids[1], item))

    def flipped(self) -> Embeddings:
        """The same scores with users in the role of items; without layers and posterior."""
        ids = None if self.ids is None else self.ids[::-1]
        network = None if self.network is None else self.network.flipped()
        return Embeddings(self.item, self.user, ids=ids, network=network)

    def detach(self) -> Embeddings:
        """The same values, cut from the graph of gradients: how a teacher enters a loss."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str) -> Embeddings:
        """The same embeddings on ``device``."""
        return self._map(lambda x: x.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Embeddings:
        posterior = self.posterior
        return Embeddings(
            change(self.user),
            change(self.item),
            tuple(change(x) for x in self.layers),
            None if posterior is None else (change(posterior[0]), change(posterior[1])),
            None if self.ids is None else (change(self.ids[0]), change(self.ids[1])),
            None if self.network is None else self.network.map(change),
        )


def _place(ids: Tensor, index: Tensor) -> Tensor:
    # An int32 answer halves what the lookup writes, and the tables take it.
    return torch.searchsorted(ids, index.contiguous(), out_int32=True)


def rows(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` with a quick gradient that repeats on the CPU, ``[N, D] -> [*, D]``.

    Plain indexing adds gradients with unordered atomics there, so two runs would differ. A CUDA
    device adds in any order where rows repeat, unless ``torch.use_deterministic_algorithms`` is on.
    """
    if table.is_cuda and table.requires_grad:
        found: Tensor = AddedRows.apply(table, index)  # type: ignore[no-untyped-call]
        return found
    return nn.functional.embedding(index, table)


class AddedRows(torch.autograd.Function):
    """``table[index]`` whose gradient is one ``index_add_``, without a search for equal indices."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        """The rows, ``[*, D]``."""
        ctx.save_for_backward(index)
        ctx.shape = table.shape
        return nn.functional.embedding(index, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Every row of the gradient added to the row of the table that it came from."""
        (index,) = ctx.saved_tensors
        total = grad.new_zeros(ctx.shape)
        return total.index_add_(0, index.flatten(), grad.reshape(-1, ctx.shape[1])), None


def mean_of(layers: Sequence[Tensor]) -> Tensor:
    """Mean over tensors of one shape, without a copy of all of them side by side."""
    total = layers[0]
    for layer in layers[1:]:
        total = total + layer
    return total / len(layers)


class Backbone(nn.Module):
    """Embedding tables of users and items; subclasses write :meth:`propagate`.

    The graph is an argument and never an attribute: growth, an older graph with the same weights
    (a proxy) and a sampled subgraph are the same call.

    Args:
        num_users: rows of the user table ``U``.
        num_items: rows of the item table ``I``.
        dim: width of both tables ``D``.
        std: standard deviation of the initial values.
        generator: source of the initial values.
    """

    # Rounds of message passing, where the class knows them.
    depth: int | None = None

    # Parameters with one row per entity, and whose rows they are; growth appends to these.
    entity_tables: ClassVar[dict[str, str]] = {"user": "user", "item": "item"}
    # How it learns triplets: by the order of the scores, a margin between them, or a choice among
    # the negatives of a batch by cosines, divided by the temperature.
    loss: Literal["bpr", "hinge", "softmax", "multinomial"] = "bpr"
    temperature: float = 0.2
    # Whether scores are inner products of the served embeddings.
    inner: ClassVar[bool] = True

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        std: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_users, self.num_items, self.dim = num_users, num_items, dim
        self.user = normal_table(num_users, dim, std, generator)
        self.item = normal_table(num_items, dim, std, generator)

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        """Node embeddings after message passing, ``[U + I, D] -> [U + I, D']``."""
        raise NotImplementedError(f"{type(self).__name__} defines neither 'propagate' nor 'layers'")

    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        """Output of every layer, each ``[U + I, D']``; by default the one of :meth:`propagate`."""
        return [self.propagate(x, graph)]

    def readout(self, layers: list[Tensor]) -> Tensor:
        """Served embedding of every node from its layers; by default the last layer."""
        return layers[-1]

    def network(self) -> PairNetwork | None:
        """What scores a pair of served rows; by default their inner product does."""
        return None

    def start(self, table: str, rows: Tensor, unknown: Tensor) -> Tensor:
        """Rows that new entities of a table start from; by default ``rows`` as they are.

        Args:
            table: name of the parameter.
            rows: what the neighbours say, ``[new, D]``.
            unknown: which have no known neighbour, ``[new]``.
        """
        return rows

    def forward(self, graph: BipartiteGraph | Subgraph) -> Embeddings:
        """Embeddings of every user and item of ``graph``, or of those a subgraph was drawn around.

        Raises:
            ValueError: the graph has other entity counts than the tables.
        """
        if isinstance(graph, Subgraph):
            return self._around(graph)
        self.check_graph(graph)
        layers = self.layers(torch.cat([self.user, self.item]), graph)
        user, item = self.readout(layers).split([self.num_users, self.num_items])
        return Embeddings(user, item, tuple(layers), network=self.network())

    def _around(self, near: Subgraph) -> Embeddings:
        x = torch.cat([rows(self.user, near.user), rows(self.item, near.item)])
        # What message passing reads of a graph, a subgraph has as well.
        layers = self.layers(x, cast(BipartiteGraph, near))
        user, item = near.asked(self.readout(layers))
        ids = near.user[: len(user)], near.item[: len(item)]
        own = tuple(torch.cat(near.asked(x)) for x in layers)
        return Embeddings(user, item, own, ids=ids, network=self.network())

    def check_graph(self, graph: BipartiteGraph) -> None:
        """Refuse a graph whose entity counts differ from the tables."""
        if (graph.num_users, graph.num_items) != (self.num_users, self.num_items):
            raise ValueError(
                f"graph has {graph.num_users} users and {graph.num_items} items, the backbone "
                f"{self.num_users} and {self.num_items}; call 'grow' first"
            )


def normal_table(
    num_rows: int, dim: int, std: float, generator: torch.Generator | None
) -> nn.Parameter:
    """A table ``[num_rows, dim]`` of independent normal values with deviation ``std``."""
    return nn.Parameter(torch.randn(num_rows, dim, generator=generator) * std)
