from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_geometric.metrics import (
    LinkPredHitRatio,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredRecall,
)

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.metrics import (
    AccuracyMatrix,
    hit_matrix,
    hit_rate,
    mrr,
    ndcg,
    recall,
    truncated_recall,
)

Metric = Callable[[Tensor, Tensor, int], Tensor]
METRICS: list[Metric] = [recall, truncated_recall, ndcg, hit_rate, mrr]

# The student of the released CCD run (Recall@20 on the Yelp split, specs/ccd.md section 7).
STUDENT = [
    [0.0978],
    [0.0844, 0.0947],
    [0.0584, 0.0816, 0.0798],
    [0.0476, 0.0610, 0.0775, 0.0914],
    [0.0372, 0.0389, 0.0495, 0.0954, 0.0887],
    [0.0359, 0.0377, 0.0413, 0.0624, 0.0772, 0.0964],
]


def truth_of(sets: list[set[int]], num_items: int) -> UserItems:
    pairs = [(user, item) for user, items in enumerate(sets) for item in items]
    user, item = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    return UserItems.from_interactions([Interactions(user, item)], len(sets), num_items)


def loop(metric: Metric, listed: list[int], truth: set[int], k: int) -> float:
    """The textbook definition, one user at a time."""
    places = [r for r, item in enumerate(listed[:k], 1) if item >= 0 and item in truth]
    if not truth:
        return 0.0
    if metric is recall:
        return len(places) / len(truth)
    if metric is truncated_recall:
        return len(places) / min(k, len(truth))
    if metric is hit_rate:
        return float(bool(places))
    if metric is mrr:
        return 1 / places[0] if places else 0.0
    ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(truth)) + 1))
    return sum(1 / math.log2(r + 1) for r in places) / ideal


def random_case(seed: int) -> tuple[Tensor, Tensor, list[set[int]], int]:
    """Padded lists of some users, and ground truths of which some are empty."""
    generator = torch.Generator().manual_seed(seed)
    num_users, num_items, length = 40, 15, 8
    size = torch.randint(0, 12, (num_users,), generator=generator).tolist()
    sets = [set(torch.randperm(num_items, generator=generator)[:s].tolist()) for s in size]
    user = torch.randperm(num_users, generator=generator)[:30]
    lists = torch.rand(30, num_items, generator=generator).argsort(1)[:, :length]
    real = torch.randint(0, length + 1, (30, 1), generator=generator)
    return lists.masked_fill(torch.arange(length) >= real, -1), user, sets, num_items


def test_metrics_by_hand() -> None:
    """Hits at places 2 and 4 of four, three relevant items."""
    hits, relevant = torch.tensor([[False, True, False, True]]), torch.tensor([3])
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    expected: list[tuple[Metric, int, float]] = [
        (recall, 4, 2 / 3),
        (recall, 2, 1 / 3),
        (truncated_recall, 4, 2 / 3),
        (truncated_recall, 2, 1 / 2),
        (ndcg, 4, gain / ideal),
        (ndcg, 2, (1 / math.log2(3)) / (1 + 1 / math.log2(3))),
        (hit_rate, 4, 1.0),
        (hit_rate, 1, 0.0),
        (mrr, 4, 1 / 2),
        (mrr, 1, 0.0),
    ]
    for metric, k, value in expected:
        assert metric(hits, relevant, k).tolist() == pytest.approx([value], abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5, 8])
def test_metrics_equal_a_loop_over_users(metric: Metric, k: int) -> None:
    """Fails if padding hits, if an empty ground truth divides by zero, or if IDCG is not cut."""
    for seed in range(5):
        lists, user, sets, num_items = random_case(seed)
        hits, relevant = hit_matrix(lists, user, truth_of(sets, num_items))
        wanted = [
            loop(metric, row, sets[u], k)
            for row, u in zip(lists.tolist(), user.tolist(), strict=True)
        ]
        assert metric(hits, relevant, k).tolist() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [
        (recall, LinkPredRecall),
        (ndcg, LinkPredNDCG),
        (hit_rate, LinkPredHitRatio),
        (mrr, LinkPredMRR),
    ],
)
def test_metrics_agree_with_pyg_without_padding(metric: Metric, theirs: type) -> None:
    """On padded lists PyG counts -1 as an item, so it only ever sees full ones."""
    generator = torch.Generator().manual_seed(0)
    lists = torch.rand(50, 20, generator=generator).argsort(1)[:, :10]
    sets = [set(torch.randperm(20, generator=generator)[: 1 + u % 12].tolist()) for u in range(50)]
    truth = truth_of(sets, 20)
    hits, relevant = hit_matrix(lists, torch.arange(50), truth)
    for k in (1, 5, 10):
        pyg = theirs(k)
        pyg.update(lists, torch.stack(truth.entries(torch.arange(50))))
        assert metric(hits, relevant, k).mean().item() == pytest.approx(float(pyg.compute()))


def test_padding_is_not_the_last_item_of_the_user_before() -> None:
    hits, _ = hit_matrix(torch.tensor([[-1, 0]]), torch.tensor([1]), truth_of([{3}, {0}], 4))
    assert hits.tolist() == [[False, True]]


def test_an_item_beyond_the_truth_is_not_an_item_of_the_next_user() -> None:
    hits, _ = hit_matrix(torch.tensor([[4]]), torch.tensor([0]), truth_of([{3}, {0}], 4))
    assert hits.tolist() == [[False]]


def test_repeated_pairs_count_once() -> None:
    events = Interactions(torch.tensor([0, 0, 0]), torch.tensor([2, 2, 1]))
    truth = UserItems.from_interactions([events], 1, 3)
    hits, relevant = hit_matrix(torch.tensor([[2, 0]]), torch.tensor([0]), truth)
    assert relevant.tolist() == [2]
    assert recall(hits, relevant, 2).tolist() == [0.5]


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_no_users_are_empty_and_of_nothing_relevant_zero(metric: Metric) -> None:
    none = torch.empty(0, 3, dtype=torch.bool), torch.empty(0, dtype=torch.int64)
    assert metric(*none, 3).shape == (0,)
    assert metric(torch.zeros(2, 3, dtype=torch.bool), torch.tensor([0, 1]), 3).tolist() == [0, 0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [0, 4])
def test_metrics_refuse_a_k_the_lists_do_not_reach(metric: Metric, k: int) -> None:
    with pytest.raises(ValueError, match=f"'k' is {k}, expected 1 to 3, the length of the lists"):
        metric(torch.ones(1, 3, dtype=torch.bool), torch.tensor([1]), k)


def matrix_of(rows: list[list[float]]) -> AccuracyMatrix:
    matrix = AccuracyMatrix.empty(len(rows))
    for learnt, row in enumerate(rows):
        for tested, value in enumerate(row):
            matrix = matrix.set(learnt, tested, value)
    return matrix


def test_matrix_reproduces_the_released_student() -> None:
    """LA, RA and H as printed, to the rounding of the four-digit entries they come from."""
    matrix = matrix_of(STUDENT)
    printed = {
        1: (0.0963, 0.0896, 0.0928),
        2: (0.0908, 0.0733, 0.0811),
        3: (0.0909, 0.0694, 0.0787),
        4: (0.0905, 0.0619, 0.0735),
        5: (0.0915, 0.0585, 0.0713),
    }
    for k, summary in printed.items():
        found = matrix.learning_average(k), matrix.retained_average(k), matrix.h_mean(k)
        assert found == pytest.approx(summary, abs=1.01e-4)
    without_base = [matrix.h_mean(k, base=False) for k in range(1, 6)]
    assert without_base == pytest.approx([0.0947, 0.0838, 0.0822, 0.0770, 0.0742], abs=1.01e-4)


def test_matrix_by_hand() -> None:
    matrix = matrix_of([[0.4], [0.5, 0.2], [0.1, 0.3, 0.6]])
    assert matrix.learning_average(2) == pytest.approx(1.2 / 3)
    assert matrix.retained_average(2) == pytest.approx(1.0 / 3)
    assert matrix.h_mean(2) == pytest.approx(2 * 0.4 * (1 / 3) / (0.4 + 1 / 3))
    assert matrix.forgetting(2) == pytest.approx(((0.5 - 0.1) + (0.2 - 0.3)) / 2)
    assert matrix.backward_transfer(2) == pytest.approx(((0.1 - 0.4) + (0.3 - 0.2)) / 2)
    assert matrix.learning_average(2, base=False) == pytest.approx(0.8 / 2)
    assert matrix.retained_average(2, base=False) == pytest.approx(0.9 / 2)
    assert matrix.forgetting(2, base=False) == pytest.approx(-0.1)
    assert matrix.backward_transfer(2, base=False) == pytest.approx(0.1)


def test_setting_an_entry_leaves_the_old_matrix() -> None:
    empty = AccuracyMatrix.empty(2)
    assert empty.set(1, 0, 0.5).values[1, 0] == 0.5
    assert empty.values.isnan().all()


def test_a_diagonal_has_a_learning_average_only() -> None:
    matrix = AccuracyMatrix.empty(3).set(0, 0, 0.2).set(1, 1, 0.4).set(2, 2, 0.6)
    assert matrix.learning_average(2) == pytest.approx(0.4)
    undefined = [matrix.retained_average, matrix.h_mean, matrix.forgetting]
    assert all(math.isnan(summary(2)) for summary in [*undefined, matrix.backward_transfer])


def test_the_first_block_has_nothing_to_forget_and_zeros_have_mean_zero() -> None:
    matrix = AccuracyMatrix.empty(1).set(0, 0, 0.0)
    assert matrix.h_mean(0) == 0.0
    assert math.isnan(matrix.forgetting(0))
    assert math.isnan(matrix.backward_transfer(0))
    assert math.isnan(matrix.learning_average(0, base=False))
