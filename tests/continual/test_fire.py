import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from small_learner import learn, planted, recall, small

from ccdgraph.config import rng
from ccdgraph.continual import FIRE, FIREConfig
from ccdgraph.continual.fire import Filter, singular_vectors
from ccdgraph.continual.neighbours import similar
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.ranking import user_chunks
from ccdgraph.testing import check_strategy


@pytest.mark.parametrize("graph", ["cumulative", "block"])
def test_keeps_the_contract(graph):
    check_strategy(lambda _: FIRE(FIREConfig(graph=graph, rank=8, mean_degree=4.0), seed=3))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rate": -0.1}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1 singular vector"):
        FIREConfig(**wrong)


def random_graph(num_users: int = 12, num_items: int = 9) -> BipartiteGraph:
    """Sparse, weighted; the last user and the last item have no edge."""
    generator = rng("fire", num_users)
    there = torch.rand(num_users - 1, num_items - 1, generator=generator) < 0.4
    user, item = there.nonzero(as_tuple=True)
    weight = torch.rand(len(user), generator=generator) + 0.2
    pairs = Interactions(user, item)
    return BipartiteGraph.from_interactions(pairs, num_users, num_items, weight=weight)


def dense_scores(graph: BipartiteGraph, config: FIREConfig) -> torch.Tensor:
    """The equation with dense matrices and a full decomposition."""
    r = torch.zeros(graph.num_users, graph.num_items, dtype=torch.float64)
    r[graph.user, graph.item] = graph.weight.double()
    by_user, by_item = r.sum(1), r.sum(0)
    inverse_user, inverse_item = (
        torch.where(d > 0, d.clamp(min=1e-9).rsqrt(), 0.0) for d in (by_user, by_item)
    )
    normal = inverse_user[:, None] * r * inverse_item
    v = torch.linalg.svd(normal).Vh[: config.rank].T
    smooth = (r * inverse_item) @ v @ v.T * by_item.sqrt()
    total = config.collaborative * (r @ normal.T @ normal + config.low_pass * smooth)

    def average(lists) -> torch.Tensor:
        near = torch.zeros(lists.num_users, lists.num_items, dtype=torch.float64)
        for entity in range(lists.num_users):
            others = lists.item[lists.indptr[entity] : lists.indptr[entity + 1]]
            near[entity, others] = 1 / max(len(others), 1)
        return near

    near_user = average(similar(graph.user_items, mean_degree=config.mean_degree))
    near_item = average(similar(graph.item_users, mean_degree=config.mean_degree))
    total += config.similar_users * near_user @ r
    return total + config.similar_items * r @ near_item.T


@pytest.mark.parametrize(
    "options",
    [
        {"similar_users": 0.0, "similar_items": 0.0, "low_pass": 0.0},
        {"similar_users": 0.0, "similar_items": 0.0, "low_pass": 3.0},
        {"collaborative": 0.0, "similar_items": 0.0},
        {"collaborative": 0.0, "similar_users": 0.0},
        {"collaborative": 0.3, "similar_users": 0.5, "similar_items": 0.7},
    ],
)
def test_scores_equal_dense_matrices(options):
    """Each filter alone, and all of them."""
    config, graph = FIREConfig(rank=3, mean_degree=2.0, **options), random_graph()
    scorer = Filter(graph, config, singular_vectors(graph, 3, rng("vectors")))
    user = torch.tensor([11, 3, 0, 3])
    found, expected = scorer.scores(user), dense_scores(graph, config)[user]
    assert found.shape == (4, 9)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(found[1], found[3])


def test_singular_vectors_are_those_of_a_full_decomposition():
    graph = random_graph(60, 40)
    v = singular_vectors(graph, 5, rng("vectors"))
    dense = graph.adjacency.to_dense()[:60, 60:]
    expected = torch.linalg.svd(dense).Vh[:5].T
    torch.testing.assert_close(v @ v.T, expected @ expected.T, rtol=0, atol=1e-3)
    torch.testing.assert_close(v.T @ v, torch.eye(5), rtol=0, atol=1e-5)
    assert singular_vectors(graph, 500, rng("vectors")).shape == (40, 40)


def test_no_block_of_scores_exceeds_the_budget(monkeypatch):
    """Users are taken few at a time, and in chunks they have the scores that they have alone."""
    learner, sizes = learn(FIRE(FIREConfig(rank=4)), small()), []
    user, whole = torch.arange(30), learner.served.scores(torch.arange(30))
    inner = Filter._scores

    def counted(self, user):
        sizes.append(len(user))
        return inner(self, user)

    budget = 6 * 4 * learner.graph.num_nodes * 7
    monkeypatch.setattr(Filter, "_scores", counted)
    monkeypatch.setattr("ccdgraph.continual.fire.user_chunks", partial(user_chunks, budget=budget))
    torch.testing.assert_close(learner.served.scores(user), whole)
    assert sizes == [7, 7, 7, 7, 2]
    assert learner.served.scores(user[:0]).shape == (0, learner.graph.num_items)


def test_an_edge_ages_with_every_block():
    learner = learn(FIRE(FIREConfig(rate=0.7, rank=4)), small())
    graph, newest = learner.graph, {}
    for block in small():
        for pair in zip(block.train.user.tolist(), block.train.item.tolist(), strict=True):
            newest[pair] = math.exp(-0.7 * (2 - block.index))
    pairs = zip(graph.user.tolist(), graph.item.tolist(), strict=True)
    weight = dict(zip(pairs, graph.weight.tolist(), strict=True))
    assert weight == pytest.approx(newest)


def test_the_blocks_graph_holds_the_block_alone():
    learner = learn(FIRE(FIREConfig(graph="block", rank=4)), small())
    alone = FIRE(FIREConfig(graph="block", rank=4))
    alone.update(replace(small()[2], index=2))
    user = torch.arange(small()[2].num_users)
    assert torch.equal(learner.served.scores(user), alone.served.scores(user))


def test_recalls_communities_without_training():
    """Mutation: a filter that gives everyone the popular items recalls less than half of it."""
    found = recall(FIRE(FIREConfig(rank=16)), planted(0.0), 0, 1, 2)
    assert min(found) > 0.6


def test_faster_ageing_follows_a_drift():
    """Everybody changes groups; mutation: edges do not age."""
    slow, fast = (
        recall(FIRE(FIREConfig(rate=rate, rank=16)), planted(), 2)[0] for rate in (0.0, 3.0)
    )
    assert fast > slow + 0.1
