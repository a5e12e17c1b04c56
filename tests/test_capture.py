from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ccdgraph.capture import Replayed, _tensors, _with_tensors
from ccdgraph.config import rng
from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill import Trajectories
from ccdgraph.distill.knowledge import Knowledge
from ccdgraph.distill.methods import build_parts
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.sampling import Entities, Pairs, TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, fit

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")


def pairs(*label: float) -> Pairs:
    index = torch.arange(len(label))
    return Pairs(index, index, torch.tensor(label))


def test_without_a_cuda_device_a_step_runs_as_it_is():
    seen: list[Sequence[Any]] = []
    run = Replayed(seen.append)
    given = [[pairs(0.5)], [pairs(0.25)], [3]]
    for batches in given:
        run(batches)
    assert all(a is b for a, b in zip(seen, given, strict=True))


def test_a_batch_that_parts_share_is_given_new_tensors_once():
    shared, other = pairs(0.5, 0.25), Entities(torch.tensor([4, 2]))
    batches = [shared, other, shared, None]
    tensors = _tensors(batches)
    assert len(tensors) == 4
    made = _with_tensors(batches, [tensor.clone() for tensor in tensors])
    assert made[0] is made[2] and made[0] is not shared and made[3] is None
    for before, after in zip(tensors, _tensors(made), strict=True):
        assert torch.equal(before, after) and before is not after


@cuda
def test_replayed_training_equals_training_step_by_step():
    stream = synthetic_stream(200, 150, 4000, num_blocks=1).to(torch.device("cuda"))
    small = (
        *(BackboneConfig(name, dim=8) for name in ("LightGCN", "MF", "MultVAE")),
        BackboneConfig(dim=8, loss="softmax"),
    )
    served: list[Tensor] = []
    for record in (False, True):
        learner = CCD(_recording(CCDConfig(teachers=small), record))
        for block in stream:
            learner.update(block)
        served.append(
            torch.cat([learner.knowledge["student"].user, learner.knowledge["student"].item])
        )
    # Sums of floats in another order: atomics in the gradients of gathered rows.
    torch.testing.assert_close(*served, rtol=0.05, atol=0.02)


@cuda
@pytest.mark.parametrize("name", ["de", "regression", "htd", "ir-rrd", "cd", "concf", "hetcomp"])
def test_replayed_distillation_equals_distillation_step_by_step(name, monkeypatch):
    """Draws included: a recorded step goes on in the generators where the last one stopped."""
    stream = synthetic_stream(200, 150, 8000, num_blocks=1).to(torch.device("cuda"))
    block = stream[0]
    graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    sizes, seen = (graph.num_users, graph.num_items), graph.user_items
    recorded, losses = [], []
    record = Replayed._record
    monkeypatch.setattr(
        Replayed, "_record", lambda self, *own: (record(self, *own), recorded.append(self.possible))
    )
    for recording in (False, True):
        draw = partial(rng, 3, device=graph.device)
        table = [torch.randn(n, 8, device="cuda", generator=draw(n)) for n in sizes]
        teacher = Embeddings(*table)
        along = Trajectories.of([[teacher, teacher]], seen, k=20)
        known = Knowledge(teacher, seen, dim=8, rng=draw, batch_size=64, trajectories=along)
        small = {"cd": {"depth": 60}, "ir-rrd": {"depth": 60}, "hetcomp": {"k": 20, "compared": 20}}
        parts = build_parts([name], known, {name: small[name]} if name in small else {})
        draws = draw("order")
        batches = TripletBatches(
            block.train, sizes[1], seen.keys(), batch_size=256, generator=draws
        )
        model = BackboneConfig("MF", 8).build(*sizes, generator=rng(0)).cuda()
        objective = Objective((Part(BPR(), batches), *parts))
        fitted = fit(model, graph, [objective], FitConfig(epochs=4, record=recording))
        losses.append(torch.tensor(fitted.loss))
    assert recorded and all(recorded)
    torch.testing.assert_close(*losses, rtol=0.01, atol=0.01)


@cuda
def test_every_shape_that_comes_again_is_recorded_and_all_of_them_count():
    """Sums over batches of 3 and of 2 by turns; wrong if one shape reads the inputs of another."""
    with torch.cuda.stream(torch.cuda.Stream()):
        total, expected = torch.zeros((), device="cuda"), 0.0
        run = Replayed(lambda batches: total.add_((batches[0].label * 2 + 1).sum()))
        for size in (3, 2, 3, 2, 3, 2, 2, 3, 5):
            batch = Pairs(*(torch.rand(3, size) * 8).long().cuda())
            run([batch])
            expected += float((batch.label * 2 + 1).sum())
        assert float(total) == expected
    assert {shapes[0] for shapes in run.recorded} == {(3,), (2,)}


@cuda
def test_a_step_that_asks_the_device_for_a_size_still_runs():
    values = []
    run = Replayed(lambda batches: values.append(len(batches[0].label[batches[0].label > 0])))
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(4):
            run([Pairs(*(x.cuda() for x in (torch.arange(3), torch.arange(3), torch.rand(3) + 1)))])
    assert values[-1] == 3 and not run.recorded


def _recording(config: CCDConfig, record: bool) -> CCDConfig:
    from dataclasses import replace

    stages = {}
    for name in ("base", "generation", "update", "teacher"):
        stage = getattr(config, name)
        stages[name] = replace(stage, fit=replace(stage.fit, epochs=3, record=record))
    return replace(config, **stages)
