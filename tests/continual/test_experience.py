from dataclasses import replace

import pytest
import torch
from small_learner import LEARNING, SMALL, check, every_setting, learn, planted, recall, small

from ccdgraph.config import rng
from ccdgraph.continual import (
    ExperienceReplay,
    ExperienceReplayConfig,
    FineTune,
    FineTuneConfig,
)
from ccdgraph.continual.experience import inverse_degree
from ccdgraph.continual.reservoir import fill, held
from ccdgraph.continual.scene import Scene
from ccdgraph.data.interactions import Interactions


def build(**changes) -> ExperienceReplay:
    return ExperienceReplay(ExperienceReplayConfig(**SMALL | changes))


@every_setting
@pytest.mark.parametrize("draw", ["uniform", "inverse-degree"])
def test_keeps_the_contract(settings, draw):
    options = {"draw": draw, "memory": 100, "ratio": 0.5}
    check(lambda c: ExperienceReplay(ExperienceReplayConfig(**c, **options), seed=3), settings)


def rows(first: int, last: int) -> Interactions:
    return Interactions(torch.arange(first, last), torch.arange(first, last) % 7)


def test_every_row_is_kept_with_equal_probability():
    """Of 6 + 6 rows in two portions 4 stay, each in a third of 3000 trials.

    The deviation of a share is .0086. Mutation: new keys for the kept rows favour the later half.
    """
    generator, count = torch.Generator().manual_seed(0), torch.zeros(12)
    for _ in range(3000):
        memory = fill({}, rows(0, 6), 4, generator=generator)
        memory = fill(memory, rows(6, 12), 4, generator=generator)
        count[memory["user"]] += 1
    assert ((count / 3000 - 1 / 3).abs() < 0.035).all()


def test_a_reservoir_keeps_pairs_together_and_never_grows():
    memory, generator = {}, torch.Generator().manual_seed(0)
    for k in range(5):
        memory = fill(memory, rows(100 * k, 100 * (k + 1)), 30, generator=generator)
        kept = held(memory)
        assert len(kept) == 30 and len(torch.unique(kept.user)) == 30
        assert torch.equal(kept.item, kept.user % 7)
    assert len(fill(memory, rows(0, 0), 30, generator=generator)["user"]) == 30
    assert len(fill({}, rows(0, 3), 30, generator=generator)["user"]) == 3


def test_memory_and_rows_of_a_block_do_not_grow_with_the_blocks():
    """Forty blocks of the same size: the same tensors, the same number of rows."""
    learner = build(memory=50, fit=replace(SMALL["fit"], epochs=1))
    sizes = set()
    for index in range(40):
        block = replace(small()[0], index=index)
        learner.update(block)
        numel = tuple(value.numel() for value in learner.memory.values())
        scene = Scene(block, learner.known, None, (0,))
        sizes.add((numel, len(learner.interactions(scene)) if index else None))
    num = len(small()[0].train)
    assert sizes == {((50, 50, 50), None), ((50, 50, 50), num + round(0.2 * num))}


def scene_of(learner: ExperienceReplay, index: int) -> Scene:
    return Scene(small()[index], learner.known, None, (0, index, "model"))


def test_the_block_comes_first_and_the_replayed_pairs_are_of_the_past():
    learner = build(memory=40, ratio=0.5)
    learner.update(small()[0])
    block = small()[1].train
    rows = learner.interactions(scene_of(learner, 1))
    num = len(block)
    assert len(rows) == num + round(0.5 * num)
    assert torch.equal(rows.user[:num], block.user) and torch.equal(rows.item[:num], block.item)
    kept = set(zip(*(learner.memory[name].tolist() for name in ("user", "item")), strict=True))
    drawn = set(zip(rows.user[num:].tolist(), rows.item[num:].tolist(), strict=True))
    assert drawn <= kept and len(drawn) > 20


@pytest.mark.parametrize("draw", ["uniform", "inverse-degree"])
def test_pairs_are_drawn_in_proportion_to_their_weight(draw):
    """Against a loop over the definition; a hundred thousand draws, four deviations."""
    learner = build(memory=30, ratio=1e5 / len(small()[1].train), draw=draw)
    learner.update(small()[0])
    kept, train = held(learner.memory), small()[0].train
    weight = [
        1 / len(set(train.item[train.user == user].tolist())) if draw == "inverse-degree" else 1
        for user in kept.user.tolist()
    ]
    share = torch.tensor(weight, dtype=torch.float64) / sum(weight)
    num = len(small()[1].train)
    rows = learner.interactions(scene_of(learner, 1))
    key = (kept.user * 1000 + kept.item).tolist()
    place = {k: n for n, k in enumerate(key)}
    drawn = torch.tensor([place[k] for k in (rows.user * 1000 + rows.item)[num:].tolist()])
    found = torch.bincount(drawn, minlength=30) / len(drawn)
    assert ((found - share).abs() < 4 * (share / len(drawn)).sqrt()).all()


def test_inverse_degrees_by_hand():
    degree, user = torch.tensor([2, 0, 5]), torch.tensor([2, 0, 0, 1])
    assert inverse_degree(degree, user).tolist() == pytest.approx([0.2, 0.5, 0.5, 1.0])


def test_nothing_is_replayed_at_a_ratio_of_nought():
    silent, plain = build(ratio=0.0), FineTune(FineTuneConfig(**SMALL))
    for block in small():
        assert torch.equal(silent.update(block).item, plain.update(block).item)


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"ratio": -0.1}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=r"keeps at least 1 pair"):
        build(**wrong)


@pytest.mark.parametrize("draw", ["uniform", "inverse-degree"])
def test_keeps_what_fine_tuning_forgets(draw, monkeypatch):
    """Mutations: no replay, or replay of random pairs in place of the kept ones."""
    options = {"ratio": 1.0, "draw": draw}

    def base() -> float:
        config = ExperienceReplayConfig(**LEARNING, **options)
        return recall(ExperienceReplay(config), planted(), 0)[0]

    kept, (lost,) = base(), recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)

    def shuffled(memory) -> Interactions:
        order = torch.randperm(len(memory["item"]), generator=rng("shuffle"))
        return Interactions(memory["user"], memory["item"][order])

    monkeypatch.setattr("ccdgraph.continual.experience.held", shuffled)
    assert kept > lost + 0.3 and kept > base() + 0.1


def test_a_learner_holds_no_more_than_its_memory():
    learner = learn(build(memory=20), small())
    assert {name: len(value) for name, value in learner.memory.items()} == {
        "user": 20,
        "item": 20,
        "key": 20,
    }
