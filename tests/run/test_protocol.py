"""Ranks among sampled candidates, against a loop and by hand."""

import math

import pytest
import torch

from ccdgraph.config import rng
from ccdgraph.data import Block, Interactions, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.run.protocol import ProtocolConfig, Ruler, draw_candidates, rank_among


class Table:
    """A scorer that knows its scores by heart."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.values = scores
        self.num_users, self.num_items = scores.shape

    def scores(self, user):
        return self.values[user]


def rows(*pairs) -> Interactions:
    return Interactions(*torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T)


def test_ranks_by_hand_with_ties_and_padding():
    """Item 2 is second of four for user 0; for user 1 item 0 ties with 3, whose id is larger."""
    scorer = Table(torch.tensor([[9.0, 3.0, 5.0, 1.0], [2.0, 7.0, 1.0, 2.0]]))
    candidates = torch.tensor([[0, 1, 3], [3, 2, -1]])
    found = rank_among(scorer, rows((0, 2), (1, 0)), candidates, (1, 2))
    assert found["hit@1"] == 0.5 and found["hit@2"] == 1.0
    assert found["mrr@2"] == 0.75
    assert found["ndcg@2"] == pytest.approx((1 / math.log2(3) + 1) / 2)


def test_ranks_equal_a_loop():
    draw = rng("protocol")
    scores = torch.randint(5, (7, 20), generator=draw).float()  # with ties
    candidates = torch.stack([torch.randperm(20, generator=draw)[:9] for _ in range(7)])
    targets = rows(*((u, (3 * u) % 20) for u in range(7)), (2, 9))
    candidates[candidates == (3 * torch.arange(7) % 20).unsqueeze(1)] = -1
    candidates[2][candidates[2] == 9] = -1
    found = rank_among(Table(scores), targets, candidates, (3, 5), budget=1)
    hits, gains = [], []
    for user, item in zip(targets.user.tolist(), targets.item.tolist(), strict=True):
        others = [i for i in candidates[user].tolist() if i >= 0]
        order = sorted([*others, item], key=lambda i: (-float(scores[user, i]), i))
        rank = order.index(item) + 1
        hits.append(rank <= 3)
        gains.append(1 / math.log2(rank + 1) if rank <= 5 else 0.0)
    assert found["hit@3"] == pytest.approx(sum(hits) / 8)
    assert found["ndcg@5"] == pytest.approx(sum(gains) / 8)


def test_candidates_are_distinct_and_in_no_part():
    known = UserItems.from_interactions([rows((0, 1), (0, 4), (2, 0))], 3, 6)
    found = draw_candidates(known, 5, seed=0)
    for user, taken in enumerate([{1, 4}, set(), {0}]):
        drawn = [i for i in found[user].tolist() if i >= 0]
        assert len(set(drawn)) == len(drawn) == min(5, 6 - len(taken))
        assert not taken & set(drawn)
    assert torch.equal(found, draw_candidates(known, 5, seed=0))
    assert not torch.equal(found, draw_candidates(known, 5, seed=1))


def test_a_scorer_without_values_has_no_rank():
    scorer = Table(torch.full((1, 3), float("nan")))
    with pytest.raises(ValueError, match="NaN"):
        rank_among(scorer, rows((0, 0)), torch.tensor([[1, 2]]), (1,))


@pytest.mark.parametrize(("hide", "value"), [("past", 0.0), ("others", 1.0)])
def test_a_validation_hides_the_test_items_where_asked(hide, value):
    """The test item is the best, the validation item second."""
    block = Block(0, rows((0, 0)), rows((0, 1)), rows((0, 2)), 1, 4)
    out = Embeddings(torch.ones(1, 1), torch.tensor([[9.0], [5.0], [7.0], [1.0]]))
    ruler = Ruler(block, ProtocolConfig(ks=(1,), select="recall@1", hide=hide))
    assert ruler.measure(out, "valid")["recall@1"] == value
    assert ruler.select(out) == (value,)
    assert ruler.measure(out, "test")["recall@1"] == 1.0


def test_a_validation_gives_what_patience_waits_for_after_what_chooses():
    """The validation item is second; the order of the values decides what chooses."""
    block = Block(0, rows((0, 0)), rows((0, 1)), rows((0, 2)), 1, 4)
    out = Embeddings(torch.ones(1, 1), torch.tensor([[9.0], [5.0], [7.0], [1.0]]))
    config = ProtocolConfig(ks=(1, 2), select="recall@1", patience_on=("hit@2", "recall@1"))
    assert Ruler(block, config).select(out) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"select": "hit@7"},
            r"'select' is 'hit@7', which .*; expected 'last' or one of recall@20",
        ),
        ({"patience_on": ("mrr@5",)}, "'patience_on' is 'mrr@5', which .*; expected one of recall"),
        ({"patience_on": ("hit@20",), "select": "last"}, "'patience_on' has no effect with"),
    ],
)
def test_metrics_that_are_not_measured_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProtocolConfig(**options)
