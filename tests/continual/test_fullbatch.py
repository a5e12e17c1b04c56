from dataclasses import replace

import pytest
import torch
from small_learner import LEARNING, SMALL, check, every_setting, learn, planted, recall, small

from ccdgraph.continual import FineTune, FineTuneConfig, FullBatch, FullBatchConfig
from ccdgraph.data.interactions import Interactions


@every_setting
@pytest.mark.parametrize("start", ["fresh", "warm"])
def test_keeps_the_contract(settings, start):
    check(lambda c: FullBatch(FullBatchConfig(start=start, **c), seed=3), settings)


def test_from_nothing_equals_a_base_block_of_everything():
    """Apart from its seed and selection, which are the last block's."""
    merged = Interactions.cat(block.train for block in small())
    whole = replace(small()[2], train=merged)
    alone = FullBatch(FullBatchConfig(**SMALL))
    alone.update(whole)
    stepwise = learn(FullBatch(FullBatchConfig(**SMALL)), small())
    assert torch.equal(stepwise.served.user, alone.served.user)
    assert torch.equal(stepwise.served.item, alone.served.item)


def test_a_warm_start_goes_on_from_the_last_weights():
    short = replace(SMALL["fit"], epochs=0)
    learner = FullBatch(FullBatchConfig(**SMALL | {"start": "warm", "fit": short}))
    learner.update(small()[0])
    before = learner.model.user.detach().clone()
    learner.update(small()[1])
    assert torch.equal(learner.model.user[: len(before)], before)


def test_a_repeated_pair_counts_once():
    block = replace(small()[0], train=Interactions.cat([small()[0].train] * 2))
    twice = FullBatch(FullBatchConfig(**SMALL))
    once = FullBatch(FullBatchConfig(**SMALL))
    assert torch.equal(twice.update(block).user, once.update(small()[0]).user)


@pytest.mark.parametrize("start", ["fresh", "warm"])
def test_keeps_what_fine_tuning_forgets(start):
    """Mutation: learning from the block's rows alone, which is fine-tuning."""
    (kept,) = recall(FullBatch(FullBatchConfig(**LEARNING | {"start": start})), planted(), 0)
    (lost,) = recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)
    assert kept > lost + 0.4
