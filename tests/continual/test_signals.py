import math

import pytest
import torch

from ccdgraph.continual.signals import (
    disagreement,
    js_distance,
    known_rows,
    losses_before,
    misses,
    new_share,
    popularity_shift,
    ranks,
)
from ccdgraph.data import Interactions, UserItems, synthetic_stream
from ccdgraph.nn import Embeddings


def embeddings(seed: int = 0) -> Embeddings:
    draw = torch.Generator().manual_seed(seed)
    return Embeddings(torch.randn(4, 3, generator=draw), torch.randn(9, 3, generator=draw))


ROWS = Interactions(torch.tensor([2, 0, 2, 3, 0]), torch.tensor([1, 8, 4, 4, 0]))
SEEN = UserItems.from_interactions(
    [Interactions(torch.tensor([0, 0, 2]), torch.tensor([3, 5, 6]))], 4, 9
)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_misses_equal_a_loop(k):
    out, expected = embeddings(), []
    taken = {0: {3, 5}, 2: {6}}
    for user, item in zip(ROWS.user.tolist(), ROWS.item.tolist(), strict=True):
        score = (out.user[user] @ out.item.T).tolist()
        free = [i for i in range(9) if i not in taken.get(user, set())]
        best = sorted(free, key=lambda i: (-score[i], i))[:k]
        expected.append(float(item not in best))
    assert misses(out, ROWS, SEEN, k=k).tolist() == expected


def test_ranks_equal_a_loop_and_leave_the_scores_alone():
    out, expected = embeddings(), []
    taken = {0: {3, 5}, 2: {6}}
    for user, item in zip(ROWS.user.tolist(), ROWS.item.tolist(), strict=True):
        score = (out.user[user] @ out.item.T).tolist()
        free = [i for i in range(9) if i not in taken.get(user, set())]
        expected.append(sum(score[i] > score[item] for i in free) / len(free))
    assert ranks(out, ROWS, SEEN).tolist() == pytest.approx(expected)

    class Kept:
        num_users, num_items, kept = 4, 9, out.user @ out.item.T

        def scores(self, user):
            return self.kept[user[0] : user[-1] + 1]

    rows = Interactions(torch.tensor([0, 1, 2]), torch.tensor([8, 2, 6]))
    assert ranks(Kept(), rows, SEEN)[2] == 1  # seen: the last
    assert torch.isfinite(Kept.kept).all()
    assert ranks(out, ROWS[:0], SEEN).tolist() == []


def test_losses_equal_a_loop_over_the_same_draws():
    out = embeddings()
    found = losses_before(out, ROWS, SEEN, generator=torch.Generator().manual_seed(5))
    from ccdgraph.sampling import draw_negatives

    draw = torch.Generator().manual_seed(5)
    drawn = draw_negatives(ROWS.user, 9, 1, SEEN.keys(), generator=draw).squeeze(1)
    for place in range(5):
        user = out.user[ROWS.user[place]]
        gap = float(user @ out.item[ROWS.item[place]] - user @ out.item[drawn[place]])
        assert float(found[place]) == pytest.approx(math.log1p(math.exp(-gap)), rel=1e-5)


def test_js_distance_by_hand():
    """P = (1/2, 1/2, 0), q = (0, 1/2, 1/2): half a bit, whose root is .7071."""
    p, q = torch.tensor([2, 2, 0]), torch.tensor([0, 7, 7])
    assert js_distance(p, q) == pytest.approx(math.sqrt(0.5))
    assert js_distance(q, p) == js_distance(p, q)
    assert js_distance(p, 5 * p) == pytest.approx(0.0, abs=1e-7)
    with pytest.raises(ValueError, match="a histogram is empty"):
        js_distance(p, torch.zeros(3))


def test_popularity_ignores_items_that_came_since():
    """Counting items 3 and 4 as well would make the two blocks differ."""
    before = Interactions(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 1, 3]))
    now = Interactions(torch.zeros(7, dtype=torch.int64), torch.tensor([0, 1, 1, 4, 4, 4, 4]))
    assert popularity_shift(now, before, 3) == pytest.approx(0.0, abs=1e-7)
    assert popularity_shift(now, before, 5) > 0.3


def test_disagreement_of_equal_and_of_opposite_scorers():
    out, user = embeddings(), torch.arange(4)
    nothing = UserItems.from_interactions([Interactions.cat([])], 4, 9)
    assert disagreement(out, out, nothing, user, 4) == 0
    opposite = Embeddings(-out.user, out.item)
    assert disagreement(opposite, out, nothing, user, 4) == 1


def test_new_rows_by_hand():
    block = synthetic_stream(60, 50, 900, num_blocks=2)[1]
    new = sum(
        u >= 50 or i >= 45
        for u, i in zip(block.train.user.tolist(), block.train.item.tolist(), strict=True)
    )
    assert new_share(block, 50, 45) == pytest.approx(new / len(block.train))
    assert len(known_rows(block.train, 50, 45)) == len(block.train) - new
