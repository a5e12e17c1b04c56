import pytest
import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.distill.teacher import Ensemble, _by_search, rank_weights, teacher_lists
from ccdgraph.nn import Embeddings

INF = float("inf")


class Stored:
    """A scorer that hands out its own memory."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.num_users, self.num_items = matrix.shape

    def scores(self, user: Tensor) -> Tensor:
        everyone = len(user) == self.num_users
        return self.matrix if everyone else self.matrix[int(user[0]) : int(user[-1]) + 1]


def naive_weights(scores: Tensor) -> list[list[float]]:
    """``(1 + number of strictly higher scores)**-0.05``, entry by entry."""
    return [
        [(1 + sum(other > value for other in row)) ** -0.05 for value in row]
        for row in scores.tolist()
    ]


def naive_lists(scores: Tensor, seen: set[tuple[int, int]], k: int) -> list[list[int]]:
    """The best columns of every row by (score descending, id ascending), padded by -1."""
    lists = []
    for row, values in enumerate(scores.tolist()):
        free = [c for c in range(len(values)) if (row, c) not in seen]
        best = sorted(free, key=lambda c, values=values: (-values[c], c))[:k]
        lists.append(best + [-1] * (min(k, len(values)) - len(best)))
    return lists


def user_items(pairs: set[tuple[int, int]], num_users: int, num_items: int) -> UserItems:
    user, item = torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2).unbind(1)
    return UserItems.from_interactions([Interactions(user, item)], num_users, num_items)


def test_rank_weights_by_hand():
    weights = rank_weights(torch.tensor([[0.1, 5.0, -2.0]]))
    assert weights.tolist() == [pytest.approx([2**-0.05, 1.0, 3**-0.05])]


def test_equal_scores_share_the_better_rank():
    """Two firsts weigh 1 each and the next is third, not second."""
    weights = rank_weights(torch.tensor([[7.0, 7.0, 1.0, 1.0, 0.0]]))
    assert weights.tolist() == [pytest.approx([1.0, 1.0, 3**-0.05, 3**-0.05, 5**-0.05])]


@pytest.mark.parametrize("tied", [False, True])
def test_rank_weights_equal_counting(tied):
    scores = torch.randn(9, 31, generator=torch.Generator().manual_seed(0))
    scores = (scores * 2).round() if tied else scores
    scores[3] = 0.5  # a row of one value
    expected = torch.tensor(naive_weights(scores))
    torch.testing.assert_close(rank_weights(scores), expected)
    weight = torch.arange(1, 32, dtype=torch.float32).pow(-0.05)
    torch.testing.assert_close(_by_search(scores, weight), expected)  # off the CPU


def test_rank_weights_of_one_item_and_of_large_scores():
    assert rank_weights(torch.tensor([[3.0], [-1e3]])).tolist() == [[1.0], [1.0]]
    assert rank_weights(torch.tensor([[-1e3, 1e3]])).tolist() == [pytest.approx([2**-0.05, 1.0])]
    assert rank_weights(torch.tensor([[0.0, -0.0]])).tolist() == [[1.0, 1.0]]


def test_a_teacher_with_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        rank_weights(torch.tensor([[0.0, float("nan")]]))


def test_the_ensemble_is_the_mean_over_members():
    generator = torch.Generator().manual_seed(1)
    members = [torch.randn(6, 11, generator=generator) * 10**m for m in range(3)]
    expected = sum(torch.tensor(naive_weights(scores)) for scores in members) / 3
    user = torch.arange(2, 5)
    torch.testing.assert_close(Ensemble([Stored(m) for m in members]).scores(user), expected[2:5])


def test_an_ensemble_of_members_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="member"):
        Ensemble([Stored(torch.zeros(2, 3)), Stored(torch.zeros(2, 4))])
    with pytest.raises(ValueError, match="member"):
        Ensemble([])


def test_a_member_keeps_its_scores():
    matrix = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    before = matrix.clone()
    Ensemble([Stored(matrix), Stored(matrix)]).scores(torch.arange(4))
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_both_sides_equal_a_dense_ranking_in_chunks_of_any_size(tied, rows):
    num_users, num_items, k, k_users = 13, 9, 5, 4
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(num_users, num_items, generator=generator)
    scores = scores.round() if tied else scores
    pairs = {
        tuple(p) for p in (torch.rand(scores.shape, generator=generator) < 0.4).nonzero().tolist()
    }
    pairs |= {(7, i) for i in range(num_items)} | {(u, 2) for u in range(num_users) if u != 5}
    lists = teacher_lists(
        Stored(scores),
        user_items(pairs, num_users, num_items),
        k=k,
        k_users=k_users,
        budget=rows * 8 * 4 * num_items,
    )
    assert lists.items.tolist() == naive_lists(scores, pairs, k)
    assert lists.users.tolist() == naive_lists(scores.T, {(i, u) for u, i in pairs}, k_users)
    assert lists.items[7].tolist() == [-1] * k
    assert lists.users[2].tolist() in ([5, -1, -1, -1], [-1] * k_users)


@pytest.mark.parametrize("budget", [1, 2**20])
def test_a_sample_of_users_is_asked_alone(budget):
    scores = torch.randn(8, 6, generator=torch.Generator().manual_seed(5))
    teacher, user = Embeddings(scores, torch.eye(6)), torch.tensor([1, 4, 7])
    seen = user_items({(4, 2)}, 8, 6)
    lists = teacher_lists(teacher, seen, k=2, k_users=4, user=user, budget=budget)
    everyone = teacher_lists(teacher, seen, k=2)
    assert lists.items[user].equal(everyone.items[user])
    others = torch.ones(8).index_fill(0, user, 0).bool()
    assert (lists.items[others] == -1).all()
    for item, listed in enumerate(lists.users.tolist()):
        asked = [u for u in user.tolist() if (u, item) != (4, 2)]
        best = sorted(asked, key=lambda u, item=item: -scores[u, item])
        assert [u for u in listed if u >= 0] == best


def test_equal_scores_list_the_smaller_id_first_across_chunks():
    seen = user_items({(0, 0)}, 5, 4)
    lists = teacher_lists(Stored(torch.zeros(5, 4)), seen, k=2, budget=1)
    assert lists.items.tolist() == [[1, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert lists.users.tolist() == [[1, 2], [0, 1], [0, 1], [0, 1]]


def test_lists_are_no_longer_than_there_are_entities():
    out = Embeddings(torch.randn(3, 2), torch.randn(5, 2))
    lists = teacher_lists(out, user_items(set(), 3, 5), k=40)
    assert lists.items.shape == (3, 5) and lists.users.shape == (5, 3)
    assert lists.items.sort().values.tolist() == [list(range(5))] * 3


def test_lists_leave_the_scores_of_the_teacher_alone():
    matrix = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    before = matrix.clone()
    teacher_lists(Stored(matrix), user_items({(0, 1), (3, 5)}, 4, 6), k=3)
    assert torch.equal(matrix, before)
