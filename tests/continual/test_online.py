"""Students that read a store equal those whose teacher is in the same process, to the last bit."""

import copy
from dataclasses import replace

import pytest
import torch

from ccdgraph.continual import FineTune, FineTuneConfig, Online, OnlineConfig
from ccdgraph.continual.config import BaseConfig
from ccdgraph.data import synthetic_stream
from ccdgraph.distill.labels import LabelWriter, identity, label_block, version_after
from ccdgraph.nn import BackboneConfig
from ccdgraph.testing import check_strategy
from ccdgraph.train import FitConfig

FIT = FitConfig(epochs=2, lr=1e-2)
STREAM = synthetic_stream(60, 50, 900, num_blocks=3, num_communities=5)
CONFIG = OnlineConfig(
    BackboneConfig(dim=4),
    base=BaseConfig(batch_size=64, fit=FIT),
    batch_size=64,
    fit=FIT,
    weight=0.5,
)
K = 12
ways = pytest.mark.parametrize(
    "change",
    [
        {"into": "served"},
        {"into": "auxiliary", "gradient_scale": 0.5},
        {"soft": "pointwise", "hard": "bce", "gain": 2.0},
        {"backbone": BackboneConfig("MF", 3)},
        {"backbone": BackboneConfig("MultVAE", 3)},
    ],
)


class Teacher:
    """A teacher that learns the stream, and the labels of its state before each block."""

    def __init__(self, stream=STREAM) -> None:
        self.stream, self.scorers = stream, []
        learner = FineTune(FineTuneConfig(BackboneConfig(dim=8), base=CONFIG.base, fit=FIT), seed=9)
        for block in stream.blocks[:-1]:
            self.scorers.append(learner.update(block))

    def soft(self, block: int):
        version = version_after("teacher", block - 1)
        return label_block(self.scorers[block - 1], self.stream, block, version=version, k=K)

    def __call__(self, block):
        return self.soft(block.index).padded(block.num_users)

    def write(self, folder) -> None:
        with LabelWriter(folder, identity(self.stream)) as writer:
            for block in range(1, len(self.stream)):
                before = self.scorers[block - 1]
                sizes = {"num_users": before.num_users, "num_items": before.num_items}
                writer.write(self.soft(block), **sizes)


@pytest.fixture(scope="module")
def teacher():
    return Teacher()


@pytest.fixture(scope="module")
def store(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    teacher.write(folder)
    return str(folder)


def learnt(student: Online) -> Online:
    for block in STREAM:
        student.update(block)
    return student


@ways
def test_students_of_the_store_equal_those_in_the_process(change, teacher, store):
    config = replace(CONFIG, **change)
    live = learnt(Online(config, seed=3, labels=teacher)).state()
    stored = learnt(Online(replace(config, labels=store), seed=3)).state()
    alone = learnt(Online(config, seed=3)).state()
    assert live.keys() == stored.keys()
    assert all(torch.equal(live[name], stored[name]) for name in live)
    assert any(not torch.equal(live[name], alone[name]) for name in alone)  # the labels count


def test_contract(store):
    """Blind to the future, reproducible, and resumable with its head."""
    poisoned = replace(CONFIG, labels=store)
    check_strategy(lambda _: Online(poisoned, seed=1), STREAM)


def test_only_the_head_tells_the_two_apart(teacher):
    """The head is in the state, so that it goes on, and not in what serves."""
    student = learnt(Online(CONFIG, labels=teacher))
    assert {name for name in student.state() if name.startswith("memory/")} == {
        f"memory/{side}.{kind}" for side in ("user", "item") for kind in ("weight", "bias")
    }
    assert not torch.equal(student.memory["user.weight"], torch.eye(4))
    model = copy.deepcopy(student.model)
    assert {name for name, _ in model.named_parameters()} == {"user", "item"}


def test_a_head_that_sends_nothing_back_leaves_the_student_alone(teacher):
    """Adam's state is by parameter, so the head cannot change the tables in another way."""
    config = replace(CONFIG, gradient_scale=0.0)
    silent, alone = learnt(Online(config, labels=teacher)), learnt(Online(config))
    assert torch.equal(silent.model.user, alone.model.user)


def test_lag_and_freezing_choose_the_version(tmp_path, teacher):
    with LabelWriter(tmp_path, {}) as writer:
        for done, block in ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)):
            scorer = teacher.scorers[done]
            labels = label_block(scorer, STREAM, block, version=f"teacher-{done}", k=K)
            writer.write(labels, num_users=scorer.num_users, num_items=scorer.num_items)
    for options, expected in (
        ({}, (0, 1, 2)),
        ({"lag": 1}, (0, 0, 1)),
        ({"freeze": 0}, (0, 0, 0)),
        ({"freeze": 1}, (0, 1, 1)),
        ({"freeze": 1, "lag": 1}, (0, 0, 0)),
    ):
        student = Online(replace(CONFIG, labels=str(tmp_path), **options))
        for block, done in zip(STREAM.blocks[1:], expected, strict=True):
            labels = label_block(teacher.scorers[done], STREAM, block.index, version="a", k=K)
            scores, lists = student._labels(block)
            assert torch.equal(lists, labels.padded(block.num_users)[1])
            assert torch.equal(scores, labels.padded(block.num_users)[0])
