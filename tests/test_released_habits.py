"""Habits of the code released with CCD that must not come back, one test each.

Every docstring says what the released code does; with that put back, the test fails.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from ccdgraph.config import ConfigError, from_dict
from ccdgraph.continual import CCD, CCDConfig, grow
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.piw import PIW
from ccdgraph.continual.replay import ReplayBatches, memorise
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.stream import Stream
from ccdgraph.distill import RRD, Ensemble, teacher_lists
from ccdgraph.evaluate import evaluate, evaluate_block
from ccdgraph.nn import MF, BackboneConfig, Embeddings, LightGCN, MultVAE
from ccdgraph.run.config import EvaluateConfig
from ccdgraph.sampling import Entities, TripletBatches, Triplets
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit

FIT = FitConfig(epochs=2, lr=1e-2)
REPLAY = (ReplayConfig(depth=10, redraw=1),)
CONFIG = CCDConfig(
    student=BackboneConfig(dim=4),
    teachers=(BackboneConfig(dim=6), BackboneConfig("MultVAE", 6)),
    base=BaseConfig(fit=FIT),
    generation=GenerationConfig(list_length=5, fit=FIT),
    update=StudentConfig(replay=REPLAY, batch_size=64, fit=FIT),
    teacher=TeacherConfig(replay=REPLAY, batch_size=64, fit=FIT),
)


@cache
def stream() -> Stream:
    return synthetic_stream(60, 50, 900, num_blocks=2, num_communities=5)


def graph_of(*pairs: tuple[int, int], sizes: tuple[int, int]) -> BipartiteGraph:
    user, item = torch.tensor(pairs).unbind(1)
    return BipartiteGraph.from_interactions(Interactions(user, item), *sizes)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def lwckd_world() -> tuple[LightGCN, BipartiteGraph, Triplets]:
    """A LightGCN that knows ids up to 6, and a block with users 3, 5, 6 and items 2, 4, 6."""
    graph = graph_of(*((u, i) for u in range(7) for i in range(7) if (u + i) % 3), sizes=(7, 7))
    model = LightGCN(7, 7, 4, std=1.0, generator=generator())
    batch = Triplets(torch.tensor([3, 5, 6]), torch.tensor([2, 4, 6]), torch.zeros(3, 1))
    return model, graph, batch


class Stored:
    """A scorer that hands out the matrix it keeps."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.num_users, self.num_items = matrix.shape

    def scores(self, user: Tensor) -> Tensor:
        return self.matrix[int(user[0]) : int(user[-1]) + 1]


def test_1_exactly_topk_two_hop_neighbours_are_averaged_alone():
    """Released: the slice ``[-(topk - n):]`` is ``[-0:]`` for n = topk and takes everyone."""
    graph = graph_of((0, 0), (1, 0), (2, 1), (2, 2), (3, 1), (4, 0), sizes=(5, 3))
    model = MF(4, 3, 2, std=1.0, generator=generator())
    user = grow(model, graph, topk=2).user.detach()[4]
    both = (model.item[0] + model.user[:2].mean(0)).detach() / 2
    torch.testing.assert_close(user, both)


def test_2_personal_weights_weigh_every_user_by_itself():
    """Released: ``(B,)`` times ``(B, 1)``, whose mean is the plain mean as weights have mean 1."""
    model, graph, batch = lwckd_world()
    old, out = embed(model, graph), model(graph)
    moved = Embeddings(out.user + torch.randn(7, 4, generator=generator()), out.item, out.layers)
    piw = PIW(old, num_clusters=3, generator=generator())
    neighbours = Neighbours.of(graph)
    weighted = LWCKD(old, neighbours, weight=piw)(moved, batch)
    plain = LWCKD(old, neighbours)(moved, batch)
    assert not torch.isclose(weighted, plain, rtol=1e-5)
    gradients = torch.autograd.grad(weighted, [piw.bilinear, piw.first, piw.last])
    assert all(gradient.abs().max() > 1e-5 for gradient in gradients)


def test_3_anchors_are_the_old_embeddings_of_the_entities_themselves():
    """Released: users 3, 5, 6 are renumbered to 0, 1, 2 and read the old rows of those."""
    model, graph, batch = lwckd_world()
    old, out = embed(model, graph), embed(model, graph)
    neighbours = Neighbours.of(graph)
    loss = LWCKD(old, neighbours)(out, batch)
    for node, anchors in ((0, False), (1, False), (5, True), (7 + 0, False), (7 + 4, True)):
        layers = tuple(layer.clone() for layer in old.layers)
        for layer in layers:
            layer[node] += 1
        changed = LWCKD(replace(old, layers=layers), neighbours)(out, batch)
        assert torch.equal(loss, changed) != anchors


def test_4_the_deepest_layer_is_distilled():
    """Released: the first L of the L + 1 layers."""
    model, graph, batch = lwckd_world()
    out = model(graph)
    deepest = [layer.detach().requires_grad_() for layer in out.layers]
    assert len(deepest) == 3
    loss = LWCKD(embed(model, graph), Neighbours.of(graph))(
        Embeddings(out.user, out.item, tuple(deepest)), batch
    )
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, deepest))


def test_5_replay_asks_the_student_in_training_for_its_ranks(monkeypatch):
    """Released: the ranks of the distilled student, frozen before the block."""
    asked, draw = [], ReplayBatches._draw
    monkeypatch.setattr(
        ReplayBatches, "_draw", lambda self, out: asked.append(out) or draw(self, out)
    )
    learner = CCD(replace(CONFIG, teacher=TeacherConfig(update=False)))
    learner.update(stream()[0])
    student = learner.student
    learner.update(stream()[1])
    first, second = asked
    grown = embed(grow(student, learner.known.history), learner.known.graph)
    assert not torch.isclose(first.user, second.user).all(), "it has learnt in between"
    assert not torch.isclose(first.user, grown.user).all(), "the first sweep comes after BPR's"


def test_6_replay_sweeps_every_sample_with_labels_in_full_precision():
    """Released: batches end at ``-1``, so one sample is lost; labels are float16."""
    source = Embeddings(torch.randn(5, 3, generator=generator()), torch.randn(7, 3))
    seen = UserItems.from_interactions([Interactions.cat([])], 5, 7)
    memory = memorise(source, seen, depth=7, draws=7)
    batches = list(
        ReplayBatches([memory], seen, batch_size=8, generator=generator()).epoch(0, lambda: source)
    )
    assert [len(batch.user) for batch in batches] == [8, 8, 8, 8, 3]
    for batch in batches:
        assert batch.label.dtype == torch.float32
        exact = source.pairs(batch.user, batch.item).sigmoid()
        torch.testing.assert_close(batch.label, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", ["user", "item"])
def test_7_lists_are_distilled_into_the_served_scores(side):
    """Released: the losses read the layer-0 tables while propagated embeddings serve."""
    model, graph, _ = lwckd_world()
    out = model(graph)
    lists = torch.randint(7, (7, 1), generator=generator())
    term = RRD(lists, UserItems.from_interactions([Interactions.cat([])], 7, 7), side=side)
    loss = term(out, Entities(torch.arange(7)))
    table = Embeddings(*out.layers[0].split(7))
    assert torch.equal(loss, term(Embeddings(out.user, out.item), Entities(torch.arange(7))))
    assert not torch.isclose(loss, term(table, Entities(torch.arange(7))))
    scores = (out.user @ out.item.T if side == "user" else out.item @ out.user.T).detach()
    expected = -scores.log_softmax(1).gather(1, lists).sum()
    torch.testing.assert_close(loss.detach(), expected)


def test_8_masking_leaves_the_scores_of_a_source_alone():
    """Released: seen items are overwritten in the proxies' saved matrices."""
    matrix = torch.randn(6, 8, generator=generator())
    before, source = matrix.clone(), Stored(matrix)
    targets = Interactions(torch.arange(6), torch.tensor([1, 2, 3, 1, 2, 3]))
    others = Interactions(torch.tensor([0, 1, 5, 5]), torch.tensor([0, 4, 6, 7]))
    seen = UserItems.from_interactions([others], 6, 8)
    evaluate(source, targets, seen, ks=(3,))
    teacher_lists(source, seen, k=3)
    teacher_lists(Ensemble([source, source]), seen, k=3)
    assert torch.equal(matrix, before)


def test_9_every_epoch_can_be_kept_and_patience_stops():
    """Released: validation in epochs 0 and 5 only, so stopping never acts."""
    block = stream()[0]
    graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    tables, values = [], iter([0.1, 0.2, 0.4, 0.3, 0.2, 0.1, 0.9])

    def validate(out: Embeddings) -> float:
        tables.append(out.user.clone())
        return next(values)

    model = MF(block.num_users, block.num_items, 4, generator=generator())
    batches = TripletBatches(
        block.train, block.num_items, graph.user_items.keys(), generator=generator()
    )
    config = FitConfig(epochs=7, patience=3)
    result = fit(model, graph, [Objective((Part(BPR(), batches),))], config, validate=validate)
    assert (result.best_epoch, len(result.valid)) == (2, 6)
    assert torch.equal(model.user, tables[2])


def test_10_variational_teachers_are_updated_and_their_noise_is_normal_and_off_when_serving():
    """Released: their update fails; noise is uniform on [0, 1] and acts in evaluation too."""
    learner = CCD(CONFIG)
    learner.update(stream()[0])
    before = learner.teachers[1]
    learner.update(stream()[1])
    after = learner.teachers[1]
    assert isinstance(after, MultVAE) and after.num_items > before.num_items
    for name in ("encoder", "decoder", "posterior", "hidden"):
        old, new = before.get_parameter(name), after.get_parameter(name)
        assert not torch.isclose(new[: len(old)], old).all(), name
    graph = learner.known.graph
    assert torch.equal(embed(after, graph).user, embed(after, graph).user)
    noise = after._draw(torch.zeros(20_000), normal=True)
    assert abs(float(noise.mean())) < 0.03 and float(noise.std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_11_weights_that_do_not_load_are_an_error(damage):
    """Released: "Fail!" is printed and training goes on with random weights."""
    learner = CCD(CONFIG)
    learner.update(stream()[0])
    state = learner.state()
    if damage == "missing":
        del state["teacher.0/item"]
    else:
        state["teacher.0/item"] = state["teacher.0/item"][:-1]
    with pytest.raises(RuntimeError, match="item"):
        CCD(CONFIG).restore(state, stream().blocks[:1])


def test_12_older_edges_stay_in_the_graph():
    """Released: propagation over the edges of the current block only."""
    learner = CCD(CONFIG)
    learner.update(stream()[0])
    learner.update(stream()[1])
    graph, trained = learner.known.graph, [block.train for block in stream()][:2]
    keys = Interactions.cat(trained).user * graph.num_items + Interactions.cat(trained).item
    assert torch.equal(torch.unique(keys), graph.user_items.keys())
    absent = sorted(set(trained[0].user.tolist()) - set(trained[1].user.tolist()))
    out = embed(learner.student, graph)
    alone = learner.student.user.detach()[absent] / len(out.layers)  # what is left without edges
    assert len(absent) > 3 and not torch.isclose(out.user[absent], alone).any(1).all()


def test_13_list_lengths_are_numbers_and_names_of_data_are_free():
    """Released: ``--k_list`` becomes a list of characters; two names of data sets are known.

    That nothing dense is held is a file of its own, ``test_nothing_dense.py``.
    """
    assert from_dict(EvaluateConfig, {"ks": [20, 50]}).ks == (20, 50)
    for text in ("[20, 50]", "20"):
        with pytest.raises(ConfigError, match="ks"):
            from_dict(EvaluateConfig, {"ks": text})
    learner, renamed = CCD(CONFIG), replace(stream(), name="anything")
    learner.update(renamed[0])
    measured = evaluate_block(learner.scorers()["student"], renamed, 0, 0, ks=(2, 15))["all"]
    assert set(measured.metrics) == {
        f"{name}@{k}" for name in ("recall", "ndcg", "hit", "mrr", "trecall") for k in (2, 15)
    }
