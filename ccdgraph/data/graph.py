"""The bipartite graph of users and items: symmetric, normalised once, kept as CSR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.sparse import Product, csr, sparse_product

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Data, HeteroData


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    r"""Users and items as one node set ``[users | items]`` with an edge in both directions.

    Node ``u`` is user ``u``, node ``num_users + i`` is item ``i``. Pairs are unique and sorted, so
    the CSR needs no sort of its own; it and the normalisation are made once, at first use.

    .. math:: \hat A = D^{-1/2} A D^{-1/2}

    Build one with :meth:`from_interactions` and extend it with :meth:`grow`.

    Args:
        user: user of each pair, int64 ``[E]``, ascending.
        item: item of each pair, int64 ``[E]``, ascending inside a user.
        weight: positive weight of each pair, float32 ``[E]``; 1 unless a caller says otherwise.
        num_users: number of user nodes ``U``.
        num_items: number of item nodes ``I``.

    >>> events = Interactions(torch.tensor([0, 1]), torch.tensor([0, 0]))
    >>> graph = BipartiteGraph.from_interactions(events, 2, 1)
    >>> graph.propagate(torch.eye(3))[2].tolist()  # the item hears both users, each by 1/sqrt(2)
    [0.7071..., 0.7071..., 0.0]
    """

    user: Tensor
    item: Tensor
    weight: Tensor
    num_users: int
    num_items: int

    @classmethod
    def from_interactions(
        cls,
        interactions: Interactions,
        num_users: int,
        num_items: int,
        *,
        weight: Tensor | None = None,
    ) -> BipartiteGraph:
        """Unique pairs of ``interactions``; of repeated pairs the largest weight counts.

        Raises:
            ValueError: an id lies outside ``num_users`` or ``num_items``.
        """
        user, item = interactions.user, interactions.item
        _check_ids("user", user, num_users)
        _check_ids("item", item, num_items)
        key, place = torch.unique(user * num_items + item, return_inverse=True)
        if weight is None:
            weight = torch.ones(len(user), device=user.device)
        largest = torch.zeros(len(key), dtype=weight.dtype, device=user.device)
        largest.scatter_reduce_(0, place, weight, reduce="amax")
        return cls(key // num_items, key % num_items, largest, num_users, num_items)

    def grow(
        self, interactions: Interactions, num_users: int, num_items: int, *, decay: float = 1.0
    ) -> BipartiteGraph:
        """The graph after ``interactions`` have arrived; entities only ever get appended.

        Args:
            interactions: the new pairs, weight 1 each.
            num_users: users known now.
            num_items: items known now.
            decay: factor on the weight of every older pair (1 keeps them; below 1 is recency).

        Raises:
            ValueError: the graph would shrink.
        """
        if num_users < self.num_users or num_items < self.num_items:
            raise ValueError(
                f"graph has {self.num_users} users and {self.num_items} items and cannot shrink to "
                f"{num_users} and {num_items}; pass cumulative counts"
            )
        old = Interactions(self.user, self.item)
        new = Interactions(interactions.user, interactions.item)
        ones = torch.ones(len(new), device=self.user.device)
        return BipartiteGraph.from_interactions(
            Interactions.cat([old, new]),
            num_users,
            num_items,
            weight=torch.cat([self.weight * decay, ones]),
        )

    @property
    def num_nodes(self) -> int:
        """Users and items together."""
        return self.num_users + self.num_items

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self.user.device

    @cached_property
    def _by_item(self) -> Tensor:
        """Order of the pairs that sorts them by item, then user ``[E]``."""
        return torch.argsort(self.item, stable=True)

    @cached_property
    def edge_index(self) -> EdgeIndex:
        """Both directions of every pair ``[2, 2E]``, sorted by row, with the CSR cached."""
        order = self._by_item
        row = torch.cat([self.user, self.item[order] + self.num_users])
        col = torch.cat([self.item + self.num_users, self.user[order]])
        index = EdgeIndex(
            torch.stack([row, col]),
            sparse_size=(self.num_nodes, self.num_nodes),
            sort_order="row",
            is_undirected=True,
        )
        return index.fill_cache_()

    @cached_property
    def raw_weight(self) -> Tensor:
        """Weight of every directed edge before normalisation, ``[2E]``."""
        return torch.cat([self.weight, self.weight[self._by_item]])

    @cached_property
    def degree(self) -> Tensor:
        """Summed weight of every node, ``[U + I]``; 0 for an isolated one."""
        total = torch.zeros(self.num_nodes, device=self.device)
        return total.index_add_(0, self.edge_index[0].as_subclass(Tensor), self.raw_weight)

    @cached_property
    def edge_weight(self) -> Tensor:
        """Entries of the normalised adjacency in the order of :attr:`edge_index`, ``[2E]``."""
        # An isolated node has no edge, so its infinite factor is never read.
        row, col = self.edge_index.as_subclass(Tensor)
        factor = self.degree.rsqrt()
        # The product of the factors first: then both directions of a pair have the same bits.
        return factor[row] * factor[col] * self.raw_weight

    @cached_property
    def adjacency(self) -> Tensor:
        """Normalised adjacency as a sparse CSR tensor ``[U + I, U + I]``."""
        (rowptr, col), _ = self.edge_index.get_csr()
        return csr(rowptr, col, self.edge_weight, (self.num_nodes, self.num_nodes))

    @cached_property
    def _product(self) -> Product:
        return Product(self.adjacency, self.adjacency)

    @cached_property
    def user_items(self) -> UserItems:
        """Items of every user as CSR."""
        indptr = torch.bincount(self.user, minlength=self.num_users).cumsum(0)
        return UserItems(torch.cat([indptr.new_zeros(1), indptr]), self.item, self.num_items)

    @cached_property
    def item_users(self) -> UserItems:
        """Users of every item as CSR (users in the role of items)."""
        return self.flipped.user_items

    @cached_property
    def flipped(self) -> BipartiteGraph:
        """The same pairs with users and items exchanged."""
        item, user, weight = (part[self._by_item] for part in (self.item, self.user, self.weight))
        return BipartiteGraph(item, user, weight, self.num_items, self.num_users)

    def propagate(self, x: Tensor) -> Tensor:
        r"""One round of message passing, :math:`\hat A x`: ``[U + I, D] -> [U + I, D]``."""
        return self._product(x)

    def sum_over_items(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum of the rows of each user's items, ``[I, D] -> [U, D]``.

        Args:
            x: item rows ``[I, D]``; gradients flow to them.
            weight: weight of each pair in the order of ``user``, ``[E]``; no gradient.
        """
        by_user, by_item, order = self.user_items, self.item_users, self._by_item
        size = (self.num_users, self.num_items)
        matrix = csr(by_user.indptr, by_user.item, weight, size)
        flipped = csr(by_item.indptr, by_item.item, weight[order], size[::-1])
        return sparse_product(matrix, flipped, x)

    def to(self, device: torch.device | str) -> BipartiteGraph:
        """The same graph on ``device``."""
        user, item, weight = (part.to(device) for part in (self.user, self.item, self.weight))
        return BipartiteGraph(user, item, weight, self.num_users, self.num_items)

    def to_data(self) -> Data:
        """A homogeneous PyG graph; ``node_type`` is 0 for users and 1 for items."""
        from torch_geometric.data import Data

        kind = torch.arange(self.num_nodes, device=self.device) >= self.num_users
        return Data(
            edge_index=self.edge_index.as_tensor(),
            edge_weight=self.edge_weight,
            node_type=kind.long(),
            num_nodes=self.num_nodes,
        )

    def to_hetero(self) -> HeteroData:
        """A PyG graph with the edge types ``user rates item`` and ``item rev_rates user``."""
        from torch_geometric.data import HeteroData

        data = HeteroData()
        data["user"].num_nodes, data["item"].num_nodes = self.num_users, self.num_items
        for relation, ends in (
            (("user", "rates", "item"), (self.user, self.item)),
            (("item", "rev_rates", "user"), (self.item, self.user)),
        ):
            data[relation].edge_index = torch.stack(ends)
            data[relation].edge_weight = self.weight
        return data

    def to_networkx(self) -> networkx.Graph[Any]:
        """An undirected networkx graph; users are ``("user", id)`` and items ``("item", id)``."""
        import networkx

        graph: networkx.Graph[Any] = networkx.Graph()
        graph.add_nodes_from((("user", u) for u in range(self.num_users)), bipartite=0)
        graph.add_nodes_from((("item", i) for i in range(self.num_items)), bipartite=1)
        triples = zip(self.user.tolist(), self.item.tolist(), self.weight.tolist(), strict=True)
        graph.add_weighted_edges_from((("user", u), ("item", i), w) for u, i, w in triples)
        return graph


def _check_ids(name: str, index: Tensor, size: int) -> None:
    if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
        raise ValueError(
            f"'{name}' ids run from {int(index.min())} to {int(index.max())}, the graph has "
            f"{size}; pass the cumulative count of the block as 'num_{name}s'"
        )
