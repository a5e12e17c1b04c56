import math
from collections.abc import Callable

import pytest
import torch

from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.stream import Block
from ccdgraph.distill.rrd import RRD
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import MF, Backbone, Embeddings, LightGCN
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import Entities, EntityBatches, Pairs, TripletBatches, Triplets
from ccdgraph.train import (
    BPR,
    FitConfig,
    Objective,
    Part,
    SampledSoftmax,
    SoftBCE,
    Term,
    embed,
    fit,
)

BLOCK = synthetic_stream(150, 90, 2500, num_blocks=1)[0]
SIZES = BLOCK.num_users, BLOCK.num_items
GRAPH = BipartiteGraph.from_interactions(BLOCK.train, *SIZES)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(kind: Callable[..., Backbone], seed: int = 0) -> Backbone:
    return kind(*SIZES, 8, std=0.1, generator=draw(seed))


class Replay:
    """Two batches of pairs with labels."""

    def epoch(self, epoch, current=None):
        for start in (0, 40):
            pairs = BLOCK.train[torch.arange(start, start + 40)]
            yield Pairs(pairs.user, pairs.item, torch.rand(40, generator=draw(epoch)))


def objectives(block: Block = BLOCK) -> list[Objective]:
    """Interactions, both sides of a teacher's lists, and replay."""
    seen = GRAPH.user_items
    triplets = TripletBatches(block.train, SIZES[1], seen.keys(), batch_size=256, generator=draw(1))
    parts = [Part(BPR(), triplets)]
    teacher = embed(model_of(MF, seed=9), GRAPH)
    items = recommend_lists(teacher, torch.arange(SIZES[0]), 10, seen)[1]
    users = torch.randint(SIZES[0], (SIZES[1], 5), generator=draw(2))
    for side, lists, rows in (("user", items, seen), ("item", users, GRAPH.item_users)):
        term = RRD(lists, rows, side=side, num_rest=20, generator=draw(3))
        order = EntityBatches(torch.arange(len(lists)), batch_size=32, generator=draw(4))
        parts.append(Part(term, order, 0.01))
    return [Objective(tuple(parts)), Objective((Part(SoftBCE(), Replay()),))]


@pytest.mark.parametrize("kind", [MF, LightGCN])
def test_training_on_all_neighbours_is_training_on_the_whole_graph(kind):

    losses, tables = [], []
    for fanout in (None, (-1, -1)):
        model = model_of(kind)
        config = FitConfig(epochs=3, lr=1e-2, fanout=fanout)
        losses.append(torch.tensor(fit(model, GRAPH, objectives(), config).loss))
        tables.append(torch.cat(list(model.parameters())).detach())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*tables, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind, fanout", [(MF, ()), (LightGCN, (3, 3))])
def test_a_planted_stream_is_learnt_from_samples(kind, fanout):
    """Recall@10 of random lists is .11; training with the ids of rows as entity ids stays there."""
    model = model_of(kind)
    fit(model, GRAPH, objectives(), FitConfig(epochs=15, lr=2e-2, fanout=fanout), seed=(5,))
    found = evaluate(embed(model, GRAPH), BLOCK.test, GRAPH.user_items, ks=(10,))
    assert found.mean()["recall@10"] > 0.25


def test_a_limit_on_steps_holds_for_every_objective():
    asked: list[int] = []

    class Counting(BPR):
        def forward(self, out, batch):
            asked.append(len(batch.user))
            return super().forward(out, batch)

    triplets = TripletBatches(
        BLOCK.train, SIZES[1], GRAPH.user_items.keys(), batch_size=64, generator=draw(1)
    )
    both = [Objective((Part(Counting(), triplets),))] * 2
    fit(model_of(MF), GRAPH, both, FitConfig(epochs=2, max_steps=3))
    assert asked == [64] * 12


def test_what_reads_everything_is_refused_on_a_sample():
    old = embed(model_of(LightGCN), GRAPH)
    triplets = TripletBatches(BLOCK.train, SIZES[1], torch.tensor([0]), generator=draw(0))
    past = Part(LWCKD(old, Neighbours.of(GRAPH)), None)
    objective = [Objective((Part(BPR(), triplets), past))]
    with pytest.raises(ValueError, match="LWCKD reads the embeddings of the whole graph"):
        fit(model_of(LightGCN), GRAPH, objective, FitConfig(epochs=1, fanout=(5, 5)))
    everything = RRD(torch.zeros(SIZES[0], 1).long(), GRAPH.user_items)
    with pytest.raises(ValueError, match="'num_rest' is 0"):
        everything.reads(Entities(torch.tensor([0])))


@pytest.mark.parametrize(
    "fanout, message",
    [((5,), "passes messages 2 times"), ((5, 0), "at least 1"), ((-2, 5), "at least 1")],
)
def test_draws_that_cannot_be_made_are_refused(fanout, message):
    with pytest.raises(ValueError, match=message):
        fit(model_of(LightGCN), GRAPH, objectives(), FitConfig(fanout=fanout))


TRIPLETS = Triplets(
    torch.tensor([0, 1, 0]), torch.tensor([2, 0, 1]), torch.tensor([[0, 1], [1, 2], [2, 2]])
)


def test_the_sampled_softmax_of_cosines_is_its_equation():
    """Six negatives serve every row; the two to three that are its own positive do not."""
    out = Embeddings(torch.randn(2, 3, generator=draw(0)), torch.randn(3, 3, generator=draw(1)))
    expected = 0.0
    for user, positive in zip(TRIPLETS.user.tolist(), TRIPLETS.positive.tolist(), strict=True):
        odds = []
        for item in (positive, *(n for n in TRIPLETS.negative.flatten().tolist() if n != positive)):
            u, i = out.user[user], out.item[item]
            odds.append(math.exp(float(u @ i / (u.norm() * i.norm())) / 0.5))
        expected -= math.log(odds[0] / sum(odds))
    assert float(SampledSoftmax(0.5)(out, TRIPLETS)) == pytest.approx(expected, rel=1e-5)


def test_the_sampled_softmax_of_a_sample_reads_what_it_says():
    user, item = SampledSoftmax().reads(TRIPLETS)
    assert set(user.tolist()) == {0, 1} and set(item.tolist()) == {0, 1, 2}


def test_a_temperature_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'temperature' is 0"):
        SampledSoftmax(0)


@pytest.mark.parametrize("kind", [MF, LightGCN])
def test_a_planted_stream_is_learnt_by_the_sampled_softmax(kind):
    """Recall@10 of random lists is .11, as is that with positives and negatives exchanged."""

    class Exchanged(SampledSoftmax):
        def forward(self, out, batch):
            return super().forward(out, Triplets(batch.user, batch.negative[:, 0], batch.positive))

    def recall(term: Term) -> float:
        model, seen = model_of(kind), GRAPH.user_items
        triplets = TripletBatches(
            BLOCK.train, SIZES[1], seen.keys(), batch_size=256, generator=draw(1)
        )
        objective = [Objective((Part(term, triplets),))]
        fit(model, GRAPH, objective, FitConfig(epochs=15, lr=2e-2), seed=(5,))
        found = evaluate(embed(model, GRAPH), BLOCK.test, seen, ks=(10,))
        return found.mean()["recall@10"]

    assert recall(SampledSoftmax()) > 0.25
    assert recall(Exchanged()) < 0.2
