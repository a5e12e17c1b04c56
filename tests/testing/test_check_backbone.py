"""Every clause of a backbone's contract has a mutant that breaks it alone."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, GraphSAGE

from ccdgraph.continual.growth import grow
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn import GNN, MF, Backbone, Embeddings, ItemMultVAE, LightGCN, MultVAE, NeuMF
from ccdgraph.testing import backbone, check_backbone

BOTH = ("user", "item")


@pytest.mark.parametrize(
    ("build", "moves"),
    [
        (MF, ()),
        (LightGCN, BOTH),
        (MultVAE, ("user",)),
        (ItemMultVAE, ("item",)),
        (NeuMF, ()),
        (partial(GNN, module=GraphSAGE, num_layers=2), BOTH),
        (partial(GNN, module=GAT, num_layers=2, heads=2), BOTH),
        (partial(GNN, module=GCN, num_layers=2), BOTH),
    ],
    ids=["MF", "LightGCN", "MultVAE", "ItemMultVAE", "NeuMF", "GraphSAGE", "GAT", "GCN"],
)
def test_shipped_backbones_keep_the_contract(build, moves):
    check_backbone(build, moves=moves)


class DeafToItems(LightGCN):
    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        is_user = (torch.arange(len(x)) < self.num_users).unsqueeze(1)
        return [x, graph.propagate(x * is_user)]


class OneDirection(LightGCN):
    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        is_user = (torch.arange(len(x)) < self.num_users).unsqueeze(1)
        return [x, graph.propagate(x) * is_user]


class HearsOneUser(LightGCN):
    """An item takes the message of its first user alone."""

    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        users = graph.item_users
        first = users.item[users.indptr[:-1].clamp(max=len(users.item) - 1)]
        heard = x[first] * (users.degree > 0).unsqueeze(1)
        return [x, torch.cat([graph.propagate(x)[: self.num_users], heard])]


class StoresTheFirstGraph(LightGCN):
    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        return super().layers(x, self.__dict__.setdefault("stored", graph))


class StoresTheLastLayer(LightGCN):
    last: Tensor | None = None

    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        layers = super().layers(x, graph)
        before, self.last = self.last, layers[-1].detach()
        return layers if before is None or len(before) != len(x) else [*layers, before]


class UnguardedMean(LightGCN):
    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        return [x, graph.propagate(x) / graph.degree.unsqueeze(1)]


class CountsPositions(MF):
    side = "user"

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        place = torch.arange(len(x)).unsqueeze(1)
        inside = (place < self.num_users) == (self.side == "user")
        return x + 0.01 * place * inside


class CountsPositionsOfItems(CountsPositions):
    side = "item"


class FrozenItems(MF):
    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        return torch.cat([x[: self.num_users], x[self.num_users :].detach()])


class FrozenFirstUser(MF):
    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        return torch.cat([x[:1].detach(), x[1:]])


class DrawsGlobally(MF):
    def __init__(self, *sizes: int, generator: torch.Generator | None = None) -> None:
        super().__init__(*sizes)


class IgnoresTheGenerator(MF):
    own = torch.Generator()

    def __init__(self, *sizes: int, generator: torch.Generator | None = None) -> None:
        super().__init__(*sizes, generator=self.own)


class HiddenTable(MF):
    def __init__(self, users: int, items: int, dim: int, **options: Any) -> None:
        super().__init__(users, items, dim, **options)
        self.bias = nn.Parameter(torch.zeros(items, dim))

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        users, items = x.split([self.num_users, self.num_items])
        return torch.cat([users, items + self.bias])


class TakesAnyGraph(MF):
    def forward(self, graph: BipartiteGraph) -> Embeddings:
        return Embeddings(self.user, self.item)


class BreaksOnAnotherSize(MF):
    def check_graph(self, graph: BipartiteGraph) -> None:
        if graph.num_nodes != self.num_users + self.num_items:
            raise RuntimeError("shapes do not match")


class DropsTheLastUser(MF):
    def forward(self, graph: BipartiteGraph) -> Embeddings:
        self.check_graph(graph)
        return Embeddings(self.user[:-1], self.item)


class SmoothsEveryoneAway(LightGCN):
    """What too many layers do: all users alike, so only popularity can be learnt."""

    def forward(self, graph: BipartiteGraph) -> Embeddings:
        out = super().forward(graph)
        return replace(out, user=out.user.mean(0, keepdim=True).expand_as(out.user))


@pytest.mark.parametrize(
    ("mutant", "moves", "violation"),
    [
        (DeafToItems, BOTH, "another graph gives the same user embeddings"),
        (OneDirection, BOTH, "another graph gives the same item embeddings"),
        (HearsOneUser, BOTH, "adding an edge does not move its item"),
        (MF, BOTH, "another graph gives the same user embeddings"),
        (LightGCN, (), "adding an edge moves its user"),
        (StoresTheFirstGraph, BOTH, "another graph gives the same user embeddings"),
        (StoresTheLastLayer, BOTH, "going back to the first graph gives another output"),
        (UnguardedMean, BOTH, "with an isolated node"),
        (CountsPositions, (), "permuting the users does not permute the user embeddings"),
        (CountsPositionsOfItems, (), "permuting the items does not permute the item embeddings"),
        (FrozenItems, (), "no gradient reaches some rows of the table 'item'"),
        (FrozenFirstUser, (), "no gradient reaches some rows of the table 'user'"),
        (DrawsGlobally, (), "draws from torch's global generator"),
        (IgnoresTheGenerator, (), "equal generators give two different 'user'"),
        (HiddenTable, (), "name every table in 'entity_tables'"),
        (TakesAnyGraph, (), "a graph of another size is not refused"),
        (BreaksOnAnotherSize, (), "a graph of another size is not refused"),
        (DropsTheLastUser, (), "does not have one row for every user and item"),
        (SmoothsEveryoneAway, BOTH, r"recall@20 on a planted stream is 0.[012]"),
    ],
)
def test_a_broken_backbone_is_caught(mutant, moves, violation):
    with pytest.raises(AssertionError, match=violation):
        check_backbone(mutant, moves=moves)


def redraws_old_rows(model: Backbone, graph: BipartiteGraph, **options: Any) -> Backbone:
    grown = grow(model, graph, **options)
    nn.init.normal_(grown.item, generator=torch.Generator())
    return grown


def forgets_the_new(model: Backbone, graph: BipartiteGraph, **options: Any) -> Backbone:
    grown = grow(model, graph, **options)
    grown.item = nn.Parameter(grown.item[: model.num_items].detach())
    grown.num_items = model.num_items
    return grown


@pytest.mark.parametrize(
    ("mutant", "violation", "error"),
    [
        (redraws_old_rows, "growth changes old values of 'item'", AssertionError),
        (forgets_the_new, "call 'grow' first", ValueError),
    ],
)
def test_broken_growth_is_caught(monkeypatch, mutant, violation, error):
    monkeypatch.setattr(backbone, "grow", mutant)
    with pytest.raises(error, match=violation):
        check_backbone(MF, moves=())
