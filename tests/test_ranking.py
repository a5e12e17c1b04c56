from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdgraph import ranking
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.ranking import mask_seen, ranks_of, recommend_lists, user_chunks
from ccdgraph.topk import topk

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
INF = float("inf")


@dataclass
class Stored:
    """A scorer that hands out its own memory and remembers how much it was asked for."""

    matrix: Tensor
    asked: list[int] = field(default_factory=list)

    @property
    def num_users(self) -> int:
        return self.matrix.size(0)

    @property
    def num_items(self) -> int:
        return self.matrix.size(1)

    def scores(self, user: Tensor) -> Tensor:
        self.asked.append(len(user))
        first = int(user[0]) if len(user) else 0
        if torch.equal(user, torch.arange(first, first + len(user))):
            return self.matrix[first : first + len(user)]
        return self.matrix[user]


def order_of(scores: Tensor) -> Tensor:
    """Every row's items by (score descending, id ascending), with sorted()."""
    return torch.tensor(
        [sorted(range(len(row)), key=lambda i, row=row: (-row[i], i)) for row in scores.tolist()]
    )


def random_scores(seed: int, *, tied: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows, items = torch.randint(1, 25, (2,), generator=generator).tolist()
    scores = torch.randn(rows, items, generator=generator)
    scores = scores.round() if tied else scores
    masked = torch.rand(rows, items, generator=generator) < 0.3
    return scores.masked_fill(masked, -INF)


def seen_of(pairs: list[tuple[int, int]], num_users: int, num_items: int) -> UserItems:
    user, item = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    return UserItems.from_interactions([Interactions(user, item)], num_users, num_items)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_topk_equals_sorting_by_score_then_id(device: str, dtype: torch.dtype) -> None:
    for seed in range(60):
        scores = random_scores(seed, tied=seed % 3 > 0).to(dtype)
        for k in {1, (scores.size(1) + 1) // 2, scores.size(1)}:
            values, index = topk(scores.to(device), k)
            assert torch.equal(index.cpu(), order_of(scores)[:, :k])
            assert torch.equal(values.cpu(), scores.gather(1, index.cpu()))


def test_topk_resolves_a_tie_across_the_boundary_to_the_smallest_ids() -> None:
    scores = torch.zeros(3, 1000)
    scores[:, 700] = 1
    assert topk(scores, 4)[1].tolist() == [[700, 0, 1, 2]] * 3


def test_topk_lists_masked_items_last_in_id_order() -> None:
    scores = torch.tensor([[-INF, -INF, 2.0, -INF, 5.0]])
    assert topk(scores, 4)[1].tolist() == [[4, 2, 0, 1]]


def test_topk_treats_both_zeros_as_equal() -> None:
    scores = torch.tensor([[-0.0, 0.0, -0.0, 0.0]])
    for device in DEVICES:
        assert topk(scores.to(device), 3)[1].tolist() == [[0, 1, 2]]


def test_topk_of_no_rows_is_empty() -> None:
    assert topk(torch.empty(0, 5), 3)[1].shape == (0, 3)


@pytest.mark.parametrize("k", [0, 5])
def test_topk_refuses_a_length_outside_the_catalogue(k: int) -> None:
    with pytest.raises(ValueError, match=f"'k' is {k}, expected 1 to 4"):
        topk(torch.zeros(1, 4), k)


@pytest.mark.parametrize("device", DEVICES)
def test_ranks_equal_places_in_the_sorted_row(device: str) -> None:
    """Fails if ties ignore the id, or if the buckets are off by one."""
    for seed in range(60):
        scores = random_scores(seed, tied=seed % 3 > 0)
        item = torch.randint(0, scores.size(1), (scores.size(0), 6))
        place = order_of(scores).argsort(1).gather(1, item)
        assert torch.equal(ranks_of(scores.to(device), item.to(device)).cpu(), place)


def test_ranks_by_hand() -> None:
    scores = torch.tensor([[0.5, 9.0, 0.5, -INF, 7.0, 0.5]])
    item = torch.tensor([[5, 1, 3, 0, 0]])
    assert ranks_of(scores, item).tolist() == [[4, 0, 5, 2, 2]]


def test_ranks_of_equal_scores_are_the_ids() -> None:
    item = torch.tensor([[3, 0, 7], [1, 1, 2]])
    assert torch.equal(ranks_of(torch.zeros(2, 8), item), item)


def test_ranks_put_padding_behind_everything() -> None:
    assert ranks_of(torch.tensor([[1.0, 2.0]]), torch.tensor([[0, -1]])).tolist() == [[1, 2]]
    assert ranks_of(torch.ones(2, 3), torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0)


def test_ranks_of_the_topk_list_count_up() -> None:
    scores = torch.randn(20, 300, generator=torch.Generator().manual_seed(0)).mul(4).round()
    assert torch.equal(ranks_of(scores, topk(scores, 50)[1]), torch.arange(50).expand(20, 50))


@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 4000), st.integers(1, 4))
def test_chunks_stay_within_the_budget(
    num_users: int, num_items: int, budget: int, copies: int
) -> None:
    user = torch.arange(num_users)
    chunks = list(user_chunks(user, num_items, budget=budget, copies=copies))
    assert torch.equal(torch.cat(chunks), user)
    assert all(len(c) <= 1 or copies * len(c) * num_items * 4 <= budget for c in chunks)


def test_mask_writes_in_place_for_the_listed_users_only() -> None:
    scores = torch.ones(2, 3)
    seen = seen_of([(0, 0), (2, 1), (2, 2)], 3, 3)
    assert mask_seen(scores, torch.tensor([2, 1]), seen) is scores
    assert scores.tolist() == [[1, -INF, -INF], [1, 1, 1]]


@pytest.mark.parametrize("device", DEVICES)
def test_lists_are_the_same_whatever_the_budget(device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(30, 40, generator=generator).mul(3).round()
    pairs = torch.randint(0, 30, (200, 2), generator=generator).tolist()
    seen = seen_of(pairs, 30, 40)
    user = torch.randperm(30, generator=generator)
    masked = matrix.clone()
    masked[tuple(torch.tensor(pairs).T)] = -INF
    for budget in (1, 5000, 2**20):
        score, item = recommend_lists(Stored(matrix.to(device)), user, 10, seen, budget=budget)
        assert torch.equal(item.cpu(), order_of(masked[user])[:, :10])
        assert torch.equal(score.cpu(), matrix[user].gather(1, item.cpu()))


def test_short_lists_are_padded_and_the_padding_shows() -> None:
    score, item = recommend_lists(
        Stored(torch.tensor([[3.0, 2.0, 1.0]])), torch.tensor([0]), 3, seen_of([(0, 0)], 1, 3)
    )
    assert item.tolist() == [[1, 2, -1]]
    assert score.tolist() == [[2.0, 1.0, -INF]]


def test_masking_leaves_a_stored_score_matrix_alone() -> None:
    """Habit 8 of the released code: masking edited the proxies' saved matrices in place."""
    scorer = Stored(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    before = scorer.matrix.clone()
    seen = seen_of([(u, i) for u in range(6) for i in range(3)], 6, 5)
    for budget in (60, 2**20):
        recommend_lists(scorer, torch.arange(6), 2, seen, budget=budget)
    assert torch.equal(scorer.matrix, before)


def test_a_row_shared_by_all_users_can_be_masked() -> None:
    class Popularity:
        num_users, num_items = 3, 4

        def scores(self, user: Tensor) -> Tensor:
            return torch.arange(4.0).expand(len(user), 4)

    lists = recommend_lists(Popularity(), torch.arange(3), 2, seen_of([(1, 3)], 3, 4))[1]
    assert lists.tolist() == [[3, 2], [2, 1], [3, 2]]


def test_no_block_asked_for_exceeds_the_budget() -> None:
    scorer = Stored(torch.randn(100, 50, generator=torch.Generator().manual_seed(0)))
    recommend_lists(scorer, torch.arange(100), 5, seen_of([], 100, 50), budget=3 * 50 * 4 * 7)
    assert sum(scorer.asked) == 100
    assert max(scorer.asked) == 7


def test_blocks_on_a_cpu_stay_where_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(100, 50, generator=torch.Generator().manual_seed(0))
    whole, pieces = Stored(matrix), Stored(matrix)
    expected = recommend_lists(whole, torch.arange(100), 5)
    monkeypatch.setattr(ranking, "BLOCK", 50 * 4 * 9)
    found = recommend_lists(pieces, torch.arange(100), 5)
    assert max(whole.asked) == 100 and max(pieces.asked) == 9
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_nan_scores_are_refused() -> None:
    matrix = torch.zeros(4, 6)
    matrix[3, 5] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        recommend_lists(Stored(matrix), torch.arange(4), 2)


def test_lists_refuse_what_the_scorer_or_mask_does_not_cover() -> None:
    scorer, user = Stored(torch.zeros(2, 3)), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="'k' is 4, expected 1 to 3"):
        recommend_lists(scorer, user, 4)
    with pytest.raises(ValueError, match="'user' holds ids 0 to 2, the scorer knows 0 to 1"):
        recommend_lists(scorer, torch.tensor([0, 2]), 1)
    with pytest.raises(ValueError, match="'user' holds ids -1 to 0"):
        recommend_lists(scorer, torch.tensor([0, -1]), 1)
    for num_users, num_items in ((1, 3), (2, 4)):
        with pytest.raises(ValueError, match="'seen' covers"):
            recommend_lists(scorer, user, 1, seen_of([], num_users, num_items))


def test_lists_of_no_user_are_empty() -> None:
    assert recommend_lists(Stored(torch.zeros(2, 3)), torch.arange(0), 2)[1].shape == (0, 2)


@dataclass
class Narrow(Stored):
    """A scorer on a device with room for so many rows."""

    room: int = 3

    def scores(self, user: Tensor) -> Tensor:
        if len(user) > self.room:
            raise torch.OutOfMemoryError("no room")
        return super().scores(user)


@pytest.mark.parametrize("room", [1, 3, 7])
def test_pieces_are_halved_until_they_fit_and_stay_so(room):
    scores = random_scores(3, tied=True).repeat(4, 1)
    everyone, narrow = torch.arange(len(scores)), Narrow(scores, room=room)
    wide = recommend_lists(Stored(scores), everyone, 1)
    torch.testing.assert_close(recommend_lists(narrow, everyone, 1), wide)
    assert max(narrow.asked) <= room and narrow.asked[0] == max(narrow.asked)
    assert sum(narrow.asked) == len(scores), "nobody is scored twice"
    assert len(narrow.asked) <= 2 * len(scores) / room + 1, "halved, not cut into single users"


def test_one_user_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        recommend_lists(Narrow(torch.zeros(4, 2), room=0), torch.arange(4), 1)
