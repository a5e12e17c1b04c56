from dataclasses import replace

import pytest
import torch
from small_learner import (
    LEARNING,
    SETTINGS,
    SMALL,
    check,
    every_setting,
    learn,
    planted,
    recall,
    small,
)

from ccdgraph.config import rng
from ccdgraph.continual import FineTune, FineTuneConfig, grow
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import MultVAE
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, Objective, Part, embed, fit

NO_VALID = replace(small(), blocks=tuple(replace(b, valid=Interactions.cat([])) for b in small()))


@every_setting
def test_keeps_the_contract(settings):
    check(lambda c: FineTune(FineTuneConfig(**c), seed=3), settings)


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_equals_its_steps_written_out(settings):
    """Build, fit; then for each block arrive, grow, fit: with the graphs written out by hand."""
    config = FineTuneConfig(**SMALL | settings | {"decay": 1.0})
    learner = learn(FineTune(config, seed=7), NO_VALID)
    model, history, rows = None, None, []
    for block in NO_VALID:
        seed, sizes = (7, block.index, "model"), (block.num_users, block.num_items)
        rows.append(block.train)
        own = BipartiteGraph.from_interactions(block.train, *sizes)
        history = own if history is None else history.grow(block.train, *sizes)
        graph = own if config.graph == "block" else history
        how = config if model is not None else config.base
        if model is None:
            model = config.backbone.build(*sizes, generator=rng(*seed, "init"))
        else:
            model = grow(model, history, init=config.init, topk=5, generator=rng(*seed, "grow"))
        batches = TripletBatches(
            block.train,
            block.num_items,
            UserItems.from_interactions(rows, *sizes).keys(),
            batch_size=64,
            num_negatives=how.negatives,
            generator=rng(*seed, "triplets"),
        )
        fit(model, graph, [Objective((Part(BPR(), batches),))], how.fit, seed=seed)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(learner.model.state_dict()[name], value, rtol=0, atol=0)
    assert torch.equal(learner.served.item, embed(model, graph).item)


def test_a_variational_model_learns_each_block():
    learner = FineTune(FineTuneConfig(**SMALL | SETTINGS[2]))
    learner.update(small()[0])
    before = learner.model.decoder.detach().clone()
    learner.update(small()[1])
    assert isinstance(learner.model, MultVAE)
    assert not torch.isclose(learner.model.decoder[: len(before)], before).all()


def test_selects_the_epoch_that_validates_best():
    """A rate that destroys the model after a good first epoch; mutation: the last epoch is kept."""
    fits = {"base": replace(LEARNING["base"], fit=replace(LEARNING["fit"], epochs=5))}
    good = recall(FineTune(FineTuneConfig(**LEARNING | fits)), replace_blocks(1), 0)
    bad = replace(LEARNING["fit"], epochs=20, lr=0.5)
    best = FineTune(FineTuneConfig(**LEARNING | {"base": replace(LEARNING["base"], fit=bad)}))
    kept = recall(best, replace_blocks(1), 0)
    assert good[0] > 0.5 and kept[0] > 0.3


def replace_blocks(num: int):
    return replace(planted(), blocks=planted().blocks[:num])


def test_learns_the_new_and_forgets_the_old():
    """Mutation: a model that is not trained on later blocks keeps the old and misses the new."""
    old, _, new = recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0, 1, 2)
    assert new > 0.7 and old < 0.3


def test_the_evolving_graph_alone_keeps_part_of_the_past():
    """Under propagation; mutation: the block's graph whatever the setting says."""
    graphs = {"backbone": replace(LEARNING["backbone"], backbone="LightGCN")}
    kept, lost = (
        recall(FineTune(FineTuneConfig(**LEARNING | graphs | {"graph": graph})), planted(), 0)[0]
        for graph in ("cumulative", "block")
    )
    assert kept > lost + 0.1


def test_an_update_that_is_done_is_not_repeated():
    learner = learn(FineTune(FineTuneConfig(**SMALL)), small())
    served = learner.served
    assert learner.update(small()[2]) is served
    assert list(learner.seconds) == ["0/model", "1/model", "2/model"]
