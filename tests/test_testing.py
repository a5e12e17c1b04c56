"""Every check fails on mutants that break one clause of its contract, and passes on what ships."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, GraphSAGE

from ccdgraph.continual.ccd import CCD
from ccdgraph.continual.config import (
    BaseConfig,
    CCDConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.continual.growth import grow
from ccdgraph.continual.lwckd import LWCKD, PIW, ClusterLoss, Neighbours
from ccdgraph.continual.strategy import Strategy
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block, Stream
from ccdgraph.distill.rrd import RRD
from ccdgraph.nn import GNN, MF, Backbone, BackboneConfig, Embeddings, LightGCN, MultVAE
from ccdgraph.sampling import Entities, Pairs, Triplets
from ccdgraph.testing import backbone, check_backbone, check_strategy, check_term
from ccdgraph.train import BPR, FitConfig, MultinomialVAE, SoftBCE, Term

BOTH = ("user", "item")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("build", "moves"),
    [
        (MF, ()),
        (LightGCN, BOTH),
        (MultVAE, ("user",)),
        (partial(GNN, module=GraphSAGE, num_layers=2), BOTH),
        (partial(GNN, module=GAT, num_layers=2, heads=2), BOTH),
        (partial(GNN, module=GCN, num_layers=2), BOTH),
    ],
    ids=["MF", "LightGCN", "MultVAE", "GraphSAGE", "GAT", "GCN"],
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


USERS, ITEMS, WIDTH = 5, 6, 3


def graph_of(*pairs: tuple[int, int]) -> BipartiteGraph:
    user, item = torch.tensor(pairs).unbind(1)
    return BipartiteGraph.from_interactions(Interactions(user, item), USERS, ITEMS)


GRAPH = graph_of((0, 0), (0, 2), (1, 0), (1, 1), (2, 2), (2, 3), (3, 3), (3, 0), (4, 5))
TRIPLETS = Triplets(torch.tensor([0, 3, 3]), torch.tensor([2, 0, 3]), torch.tensor([[1], [4], [5]]))


def embeddings(seed: int = 0, *, num_layers: int = 2, latent: int = 0) -> Embeddings:
    layers = tuple(random(USERS + ITEMS, WIDTH, seed=seed + n) for n in range(num_layers))
    posterior = (random(USERS, latent, seed=8), random(USERS, latent, seed=9)) if latent else None
    return Embeddings(
        random(USERS, WIDTH, seed=seed), random(ITEMS, WIDTH, seed=seed + 5), layers, posterior
    )


def test_shipped_losses_keep_the_contract():
    out, label = embeddings(), torch.tensor([1.0, 0.3, 0.0])
    check_term(BPR(), out, TRIPLETS)
    check_term(SoftBCE(), out, Pairs(TRIPLETS.user, TRIPLETS.positive, label))
    vae = embeddings(latent=2)
    check_term(MultinomialVAE(GRAPH), vae, Entities(torch.tensor([4, 0, 2])))


@pytest.mark.parametrize("side", BOTH)
@pytest.mark.parametrize("num_rest", [0, 3])
def test_ranking_distillation_keeps_the_contract(side, num_rest):
    rows, seen = (USERS, GRAPH.user_items) if side == "user" else (ITEMS, GRAPH.item_users)
    lists = torch.tensor([[4, 3, 1]]).repeat(rows, 1)
    lists[1, 2], lists[2] = -1, -1
    generator = torch.Generator().manual_seed(0)
    term = RRD(lists, seen, side=side, num_rest=num_rest, generator=generator)
    check_term(term, embeddings(), Entities(torch.arange(rows)))


def old_embeddings() -> tuple[Embeddings, list[Tensor]]:
    """A past whose every tensor would learn if it were let."""
    old = embeddings(20)
    tensors = [x.requires_grad_() for x in (old.user, old.item, *old.layers)]
    return old, tensors


@pytest.mark.parametrize("personal", [False, True])
def test_distillation_from_the_past_keeps_the_contract(personal):
    old, tensors = old_embeddings()
    generator = torch.Generator().manual_seed(1)
    weight = PIW(old, num_clusters=2, hidden=4, generator=generator) if personal else None
    term = LWCKD(old, Neighbours.of(GRAPH, mean_degree=2.0), weight=weight)
    check_term(term, embeddings(), TRIPLETS, frozen=tensors)


def test_the_cluster_loss_keeps_the_contract_with_its_target_held_constant():
    old, tensors = old_embeddings()
    weight = PIW(old, num_clusters=2, generator=torch.Generator().manual_seed(1))
    check_term(ClusterLoss(weight, torch.arange(4)), embeddings(), None, frozen=tensors, wrt=())


class Distance(Term):
    """To a teacher's user rows; mutants break one step of it."""

    def __init__(self, teacher: Tensor) -> None:
        super().__init__()
        self.teacher = teacher.detach()

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return (out.user - self.teacher).square().mean()


class LeaksToItsTeacher(Distance):
    def __init__(self, teacher: Tensor) -> None:
        super().__init__(teacher)
        self.teacher = teacher


class OneValueAUser(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return (out.user - self.teacher).square().mean(1)


class NoGradient(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return super().forward(out.detach(), batch)


class HalfTheGradient(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return super().forward(replace(out, user=(out.user + out.user.detach()) / 2), batch)


class Overflows(Distance):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return (out.user @ out.item.T).exp().sum(1).log().sum()


class MasksAnOverflow(Distance):
    """The value is finite, the gradient of the branch not taken is not."""

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        scores = out.user @ out.item.T
        return torch.where(scores > 30, scores, scores.exp().log1p()).sum()


class WrongParameterGradient(Distance):
    def __init__(self, teacher: Tensor) -> None:
        super().__init__(teacher)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return super().forward(out, batch) * self.scale * self.scale.detach()


@pytest.mark.parametrize(
    ("mutant", "violation"),
    [
        (LeaksToItsTeacher, "gradient reaches a frozen tensor"),
        (OneValueAUser, r"the loss has shape \(5,\)"),
        (NoGradient, "the loss has no gradient at all"),
        (HalfTheGradient, "the gradient differs from the numerical one"),
        (WrongParameterGradient, "the gradient differs from the numerical one"),
        (Overflows, "the loss is inf at scores of 1e3"),
        (MasksAnOverflow, "a gradient is not finite at scores of 1e3"),
    ],
)
def test_a_broken_term_is_caught(mutant, violation):
    teacher = random(USERS, WIDTH, seed=3).requires_grad_()
    check_term(Distance(teacher), embeddings(), None, frozen=[teacher])
    with pytest.raises(AssertionError, match=violation):
        check_term(mutant(teacher), embeddings(), None, frozen=[teacher])


def test_what_is_treated_as_constant_on_purpose_can_be_left_out():
    teacher = random(USERS, WIDTH, seed=3).requires_grad_()
    check_term(HalfTheGradient(teacher), embeddings(), None, wrt=("item", "layers"))


def test_a_frozen_tensor_that_could_not_be_caught_is_refused():
    with pytest.raises(ValueError, match="'frozen' has a tensor without 'requires_grad'"):
        check_term(BPR(), embeddings(), TRIPLETS, frozen=[torch.zeros(1)])


class Counts(Strategy):
    """Popularity of users and items, learnt in two stages; mutants break one step of it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.cursor = torch.tensor([-1, 0])
        self.tables: dict[str, Tensor] = {"user": torch.zeros(0), "item": torch.zeros(0)}

    def rows(self, block: Block) -> list[Interactions]:
        return [block.train, block.valid]

    def update(self, block: Block) -> Embeddings:
        if block.index != int(self.cursor[0]):
            self.cursor = torch.tensor([block.index, 0])
        for place, side in enumerate(BOTH):
            if place >= int(self.cursor[1]):
                self.learn(block, side)
                self.cursor = torch.tensor([block.index, place + 1])
                if self.on_stage is not None:
                    self.on_stage()
        return self.scorers()["counts"]

    def learn(self, block: Block, side: str) -> None:
        size = block.num_users if side == "user" else block.num_items
        total = nn.functional.pad(self.tables[side], (0, size - len(self.tables[side])))
        for rows in self.rows(block):
            total = total + torch.bincount(vars(rows)[side], minlength=size)
        self.tables[side] = total

    def scorers(self) -> dict[str, Embeddings]:
        user, item = (self.tables[side].unsqueeze(1) for side in BOTH)
        return {"counts": Embeddings(user, item)}

    def state(self) -> dict[str, Tensor]:
        return {"cursor": self.cursor, **self.tables}

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        assert len(blocks) == int(state["cursor"][0]) + 1, "blocks are those that had been begun"
        self.cursor = state["cursor"]
        self.tables = {side: state[side] for side in BOTH}


class ReadsTestRows(Counts):
    def rows(self, block: Block) -> list[Interactions]:
        return [block.train, block.valid, block.test]


class ReadsTheNextBlock(Counts):
    def rows(self, block: Block) -> list[Interactions]:
        later = self.stream.blocks[block.index + 1 : block.index + 2]
        known = [
            b.train[(b.train.user < block.num_users) & (b.train.item < block.num_items)]
            for b in later
        ]
        return [block.train, *known]


class CountsEveryoneToCome(Counts):
    """Sizes of the future are the future too."""

    def learn(self, block: Block, side: str) -> None:
        super().learn(block, side)
        self.tables[side] = self.tables[side] / self.stream[-1].num_users


class DrawsFromNowhere(Counts):
    def learn(self, block: Block, side: str) -> None:
        super().learn(block, side)
        self.tables[side] = self.tables[side] + torch.rand(len(self.tables[side]))


class ForgetsBetweenBlocks(Counts):
    """``momentum`` is not in the state."""

    momentum = 0.0

    def learn(self, block: Block, side: str) -> None:
        super().learn(block, side)
        self.tables[side] = self.tables[side] + self.momentum
        if side == "item":
            self.momentum = float(self.tables[side].mean())


class ForgetsBetweenStages(Counts):
    """What the first stage leaves for the second is not in the state; it is made anew by block."""

    draft = 0.0

    def learn(self, block: Block, side: str) -> None:
        super().learn(block, side)
        self.draft = self.draft + 1 if side == "item" else float(block.index)
        self.tables[side] = self.tables[side] + self.draft


class ForgetsItsPlace(Counts):
    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        super().restore(state, blocks)
        self.cursor = torch.tensor([int(state["cursor"][0]), 0])


class ReturnsSomethingElse(Counts):
    def update(self, block: Block) -> Embeddings:
        out = super().update(block)
        return replace(out, user=out.user + 1)


class ServesTheBaseBlock(Counts):
    def learn(self, block: Block, side: str) -> None:
        if block.index == 0:
            super().learn(block, side)


class HidesABadProxy(Counts):
    """The served scorer is right, a second one reads test rows."""

    def scorers(self) -> dict[str, Embeddings]:
        out, last = super().scorers(), int(self.cursor[0])
        seen = len(self.stream[last].test)
        return {**out, "proxy": replace(out["counts"], user=out["counts"].user + seen)}


@pytest.mark.parametrize(
    ("mutant", "violation"),
    [
        (DrawsFromNowhere, "with the same seed a second run differs"),
        (ReadsTestRows, "other test rows change what is learnt"),
        (HidesABadProxy, "other test rows change what is learnt .after block 0, 'proxy'"),
        (ReadsTheNextBlock, "other later blocks change what is learnt"),
        (CountsEveryoneToCome, "other later blocks change what is learnt"),
        (ForgetsBetweenBlocks, "restored after every block, the run differs"),
        (ForgetsBetweenStages, "restored after every stage, the run differs"),
        (ForgetsItsPlace, "restored 100 times, block 0 is not learnt yet"),
        (ReturnsSomethingElse, "'update' returns something else"),
        (ServesTheBaseBlock, "what is served knows"),
    ],
)
def test_a_broken_strategy_is_caught(mutant, violation):
    with pytest.raises(AssertionError, match=violation):
        check_strategy(mutant)


def test_a_sound_strategy_passes():
    check_strategy(Counts)


FIT = FitConfig(epochs=2, lr=1e-2)
REPLAY = (ReplayConfig(depth=10, stability=2, plasticity=2, student=2, redraw=1),)
TINY = CCDConfig(
    student=BackboneConfig(dim=4),
    teachers=(
        BackboneConfig("MF", dim=6),
        BackboneConfig(dim=6),
        BackboneConfig("MultVAE", dim=6),
        BackboneConfig("torch_geometric.nn:GAT", dim=6, options={"num_layers": 1, "dropout": 0.3}),
    ),
    base=BaseConfig(batch_size=128, fit=replace(FIT, patience=2)),
    generation=GenerationConfig(
        list_length=5, rest_items=10, rest_users=10, redraw=1, batch_size=128, fit=FIT
    ),
    update=StudentConfig(topk=5, replay=REPLAY, batch_size=128, fit=FIT),
    teacher=TeacherConfig(topk=5, replay=REPLAY, batch_size=128, fit=FIT),
)
PARTS = replace(TINY, teachers=TINY.teachers[1:3], update=replace(TINY.update, updates=3))


@pytest.mark.parametrize(
    "config",
    [TINY, replace(PARTS, graph="block"), replace(PARTS, decay=0.7, keep_plasticity=(0.2,))],
    ids=["mixed", "block graph in parts", "decayed graph in parts"],
)
def test_ccd_keeps_the_contract(config):
    check_strategy(lambda stream: CCD(config, seed=1))
