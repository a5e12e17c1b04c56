import math
from dataclasses import replace

import pytest
import torch
from small_learner import (
    LEARNING,
    SETTINGS,
    SMALL,
    check,
    planted,
    ranking_settings,
    recall,
    small,
)

from ccdgraph.config import rng
from ccdgraph.continual import SPMF, FineTune, FineTuneConfig, SPMFConfig, spmf
from ccdgraph.continual.spmf import RankedBatches, chances
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import TripletBatches


@ranking_settings
def test_keeps_the_contract(settings):
    check(lambda c: SPMF(SPMFConfig(**c, memory=100), seed=3), settings)


def test_a_variational_model_is_refused():
    learner = SPMF(SPMFConfig(**SMALL | SETTINGS[2]))
    learner.update(small()[0])
    with pytest.raises(ValueError, match="SPMF needs a ranking"):
        learner.update(small()[1])


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"ratio": 0.0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="keeps at least 1 pair"):
        SPMFConfig(**wrong)


def test_chances_equal_a_loop_over_the_equation():
    """The higher the score, the smaller the rank and the chance; ties rank in their order."""
    score = [0.5, -2.0, 3.0, 0.5, 1e3, -1e3]
    rank = [sum(s > own for s in score) + score[:n].count(own) for n, own in enumerate(score)]
    weight = [math.exp(r / 6) for r in rank]
    assert rank == [2, 4, 1, 3, 0, 5]
    expected = [w / sum(weight) for w in weight]
    assert chances(torch.tensor(score)).tolist() == pytest.approx(expected)
    assert chances(torch.zeros(1)).tolist() == [1.0]


def test_pairs_are_drawn_by_the_scores_of_the_moment():
    """Five pairs of scores 4 to 0, then turned round; a share's deviation is below .0029."""
    pairs = Interactions(torch.arange(5), torch.arange(5))
    triplets = TripletBatches(pairs, 9, torch.arange(0), batch_size=4096, generator=rng("spmf"))
    source = RankedBatches(pairs, 20_000, triplets)
    expected = torch.tensor([math.exp(k / 5) for k in range(5)])
    expected /= expected.sum()
    for user in (torch.arange(5).flip(0), torch.arange(5)):
        out = Embeddings(user.float().view(5, 1), torch.ones(9, 1))
        batches = list(source.epoch(0, lambda out=out: out))
        assert [len(batch.user) for batch in batches] == [4096] * 4 + [20_000 - 4 * 4096]
        drawn = torch.cat([batch.user for batch in batches])
        assert all(torch.equal(batch.user, batch.positive) for batch in batches)
        share = torch.bincount(drawn) / 20_000
        wanted = expected if user[0] == 4 else expected.flip(0)
        assert ((share - wanted).abs() < 0.012).all()


def test_memory_does_not_grow_with_the_blocks():
    learner = SPMF(SPMFConfig(**SMALL | {"memory": 40, "fit": replace(SMALL["fit"], epochs=1)}))
    for index in range(10):
        learner.update(replace(small()[0], index=index))
        assert {name: len(value) for name, value in learner.memory.items()} == {
            "user": 40,
            "item": 40,
            "key": 40,
        }


def test_keeps_what_fine_tuning_forgets(monkeypatch):
    """Mutations: fine-tuning; and a reservoir whose pairs are never drawn."""
    (kept,) = recall(SPMF(SPMFConfig(**LEARNING)), planted(), 0)
    (lost,) = recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)
    monkeypatch.setattr(spmf, "held", lambda memory: Interactions.cat([]))
    (empty,) = recall(SPMF(SPMFConfig(**LEARNING)), planted(), 0)
    assert kept > lost + 0.3 and kept > empty + 0.3
