"""Every clause of a strategy's contract has a mutant that breaks it alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ccdgraph.continual.ccd import CCD
from ccdgraph.continual.config import (
    BaseConfig,
    CCDConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.continual.strategy import Strategy
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Block, Stream
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.testing import check_strategy
from ccdgraph.train import FitConfig


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
        for place, side in enumerate(("user", "item")):
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
        user, item = (self.tables[side].unsqueeze(1) for side in ("user", "item"))
        return {"counts": Embeddings(user, item)}

    def state(self) -> dict[str, Tensor]:
        return {"cursor": self.cursor, **self.tables}

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        assert len(blocks) == int(state["cursor"][0]) + 1, "blocks are those that had been begun"
        self.cursor = state["cursor"]
        self.tables = {side: state[side] for side in ("user", "item")}


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


class TakesAnotherBase(Counts):
    BASE_NEEDS = ("stage",)

    @property
    def has_base(self) -> bool:
        return self.cursor.tolist() == [0, 1]

    def take_base(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        super().take_base({**state, "user": state["user"] + 1}, blocks)


class HasNoBase(Counts):
    BASE_NEEDS = ("stage",)


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
        (TakesAnotherBase, "with base models taken over, the run differs"),
        (HasNoBase, "'has_base' is true after 0 stages of the base block, not 1"),
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
