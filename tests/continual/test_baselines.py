"""What all baselines have in common."""

import inspect
import tomllib
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest
import torch
from small_learner import SMALL, learn, small

from ccdgraph import continual
from ccdgraph.config import from_dict, to_toml
from ccdgraph.continual import CCD, AdaptiveCCD, CCDConfig, Online, Strategy
from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import BPR

EXPORTED = [getattr(continual, name) for name in continual.__all__]
BASELINES = [
    cls
    for cls in EXPORTED
    if isinstance(cls, type)
    and issubclass(cls, Strategy)
    and cls not in (CCD, AdaptiveCCD, Online, Strategy)
]
each = pytest.mark.parametrize("cls", BASELINES)


def config_of(cls: type) -> type:
    return get_type_hints(cls.__init__)["config"]


def test_there_are_ten():
    assert len(BASELINES) == 10


@each
def test_each_is_made_of_settings_and_a_seed_with_defaults_for_both(cls):
    assert cls().config == config_of(cls)() and cls(seed=4).seed == 4
    parameters = list(inspect.signature(cls).parameters.values())
    assert [(p.name, p.kind.name) for p in parameters] == [
        ("config", "POSITIONAL_OR_KEYWORD"),
        ("seed", "KEYWORD_ONLY"),
    ]


@each
def test_settings_are_frozen_exported_and_survive_a_file(cls):
    config = config_of(cls)
    assert config in EXPORTED and is_dataclass(config)
    assert from_dict(config, tomllib.loads(to_toml(config()))) == config()
    with pytest.raises(AttributeError):
        setattr(config(), fields(config)[0].name, None)


@pytest.mark.parametrize("name", ["graph", "decay", "mask"])
def test_shared_settings_start_as_those_of_ccd(name):
    """So that nobody wins by the graph or the mask alone."""
    assert getattr(IncrementalConfig(), name) == getattr(CCDConfig(), name)
    assert IncrementalConfig().backbone == CCDConfig().student


@pytest.mark.parametrize("cls", [cls for cls in BASELINES if issubclass(cls, Incremental)])
def test_a_backbone_learns_by_its_own_loss_in_every_strategy(cls, monkeypatch):
    def never(*scores):
        raise AssertionError("by order")

    monkeypatch.setattr(BPR, "loss", never)
    own = SMALL | {"backbone": BackboneConfig(dim=4, loss="softmax")}
    learn(cls(config_of(cls)(**own)), small())
    with pytest.raises(AssertionError, match="by order"):
        learn(cls(config_of(cls)(**SMALL)), small())


@each
def test_nothing_is_served_before_the_first_block(cls):
    with pytest.raises(AssertionError, match="no block has been learnt yet"):
        cls().scorers()


@pytest.mark.parametrize("cls", [cls for cls in BASELINES if issubclass(cls, Incremental)])
def test_memory_holds_flat_tensors_and_travels_with_the_state(cls):
    learner = learn(cls(config_of(cls)(**SMALL)), small())
    memory = {k: v for k, v in learner.state().items() if k.startswith("memory/")}
    assert {f"memory/{name}" for name in learner.memory} == memory.keys()
    assert all(value.dim() == 1 for value in memory.values())
    other = cls(config_of(cls)(**SMALL))
    other.restore(learner.state(), small().blocks)
    assert all(torch.equal(other.memory[name], value) for name, value in learner.memory.items())


def test_progress_is_told_by_block_and_epoch():
    told = []
    learner = continual.FineTune(continual.FineTuneConfig(**SMALL))
    learner.on_progress = lambda *at: told.append(at)
    learn(learner, small().blocks[:2])
    expected = [(f"block {block} model", done, 2) for block in (0, 1) for done in (1, 2)]
    assert told == expected


def test_any_backbone_learns():
    """A PyG module by its import path."""
    backbone = BackboneConfig("torch_geometric.nn:GraphSAGE", 4, {"num_layers": 1})
    learner = continual.GraphSAIL(continual.GraphSAILConfig(**SMALL | {"backbone": backbone}))
    learn(learner, small())
    assert learner.served.user.isfinite().all()


@pytest.mark.parametrize("cls", [cls for cls in BASELINES if cls.BASE_NEEDS])
def test_a_base_model_of_another_strategy_changes_no_bit(cls):
    other = continual.FineTune(continual.FineTuneConfig(**SMALL), seed=3)
    learn(other, small().blocks[:1])
    assert other.has_base
    given, alone = (cls(config_of(cls)(**SMALL), seed=3) for _ in range(2))
    trained = []
    given.on_progress = lambda label, done, total: trained.append(label)
    given.take_base(other.state(), small().blocks)
    learn(given, small())
    learn(alone, small())
    assert trained and "block 0 model" not in trained
    expected = alone.state()
    assert given.state().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in given.state().items())
    assert not given.has_base


def test_a_base_that_is_learnt_otherwise_is_not_shared():
    class Otherwise(continual.FineTune):
        def hard(self):
            return BPR()

    unlike = (continual.FullBatch, Online, continual.FIRE, Otherwise)
    assert [cls.BASE_NEEDS for cls in unlike] == [()] * 4
    learner = continual.FullBatch(continual.FullBatchConfig(**SMALL))
    learn(learner, small().blocks[:1])
    assert not learner.has_base
