import math

import pytest
import torch

from ccdgraph.calibration import Answers, ece_test, labelled_pairs, predicted, reliability
from ccdgraph.config import rng
from ccdgraph.data import Interactions, UserItems
from ccdgraph.nn import Embeddings


def test_by_hand():
    """Bins [0, .5) and [.5, 1]: means .2 and .9, positives 1 of 2 and 3 of 4."""
    probability = torch.tensor([0.1, 0.3, 0.8, 0.8, 1.0, 1.0])
    label = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    table = reliability(probability, label, bins=2)
    torch.testing.assert_close(table.predicted, torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert table.observed.tolist() == [0.5, 0.75] and table.count.tolist() == [2, 4]
    assert table.ece == pytest.approx(2 / 6 * 0.3 + 4 / 6 * 0.15)


def test_equals_a_loop():
    draw = torch.Generator().manual_seed(0)
    probability, label = torch.rand(500, generator=draw), torch.rand(500, generator=draw).round()
    total = 0.0
    for b in range(15):
        inside = [k for k in range(500) if b <= float(probability[k] * 15) < b + 1]
        if inside:
            gap = sum(float(probability[k]) - float(label[k]) for k in inside) / len(inside)
            total += len(inside) / 500 * abs(gap)
    assert reliability(probability, label).ece == pytest.approx(total, abs=1e-6)


def test_a_true_probability_is_calibrated_and_a_shifted_one_is_not():
    draw = torch.Generator().manual_seed(1)
    logit = torch.randn(40_000, generator=draw)
    label = (torch.rand(40_000, generator=draw) < logit.sigmoid()).float()
    assert reliability(logit.sigmoid(), label).ece < 0.015
    assert reliability((logit + 1).sigmoid(), label).ece > 0.15


def test_edges():
    nothing = reliability(torch.empty(0), torch.empty(0))
    assert nothing.ece == 0 and math.isnan(float(nothing.predicted[0]))
    for wrong in (torch.tensor([1.5]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="pass sigmoids"):
            reliability(wrong, torch.ones(1))
    with pytest.raises(ValueError, match="'bins' is 0"):
        reliability(torch.ones(1), torch.ones(1), bins=0)


def test_drawn_pairs_are_neither_seen_nor_held_out():
    held = Interactions(torch.tensor([0, 0, 2]), torch.tensor([1, 2, 5]))
    seen = UserItems.from_interactions([Interactions(torch.tensor([0]), torch.tensor([3]))], 3, 7)
    pairs = labelled_pairs(held, seen, negatives=30, generator=torch.Generator().manual_seed(0))
    assert pairs.label.sum() == 3 and len(pairs.user) == 93
    drawn = {
        (u, i) for u, i, y in zip(*(x.tolist() for x in vars(pairs).values()), strict=True) if not y
    }
    assert drawn == {(0, i) for i in (0, 4, 5, 6)} | {(2, i) for i in (0, 1, 2, 3, 4, 6)}


def test_predictions_are_sigmoids_of_the_pairs_in_any_chunks():
    draw = torch.Generator().manual_seed(0)
    out = Embeddings(torch.randn(5, 2, generator=draw), torch.randn(9, 2, generator=draw))
    held = Interactions(torch.tensor([4, 0, 2, 2]), torch.tensor([8, 1, 5, 0]))
    nothing = UserItems.from_interactions([Interactions.cat([])], 5, 9)
    pairs = labelled_pairs(held, nothing, negatives=2, generator=draw)
    expected = out.pairs(pairs.user, pairs.item).sigmoid()
    for budget in (1, 2**20):
        torch.testing.assert_close(predicted(out, pairs, budget=budget), expected)


def two_models(draw: torch.Generator, shift: float) -> tuple[Answers, Answers]:
    """Both wrong by a different amount for every user, the second by ``shift`` more."""
    user = torch.arange(60).repeat_interleave(20)
    logit = torch.randn(len(user), generator=draw)
    label = (torch.rand(len(user), generator=draw) < logit.sigmoid()).float()
    wrong = torch.randn(2, 60, generator=draw)[:, user] + torch.tensor([[0.0], [shift]])
    first, second = (Answers((logit + 0.5 + own).sigmoid(), label, user) for own in wrong)
    return first, second


def test_equally_wrong_models_are_told_apart_no_more_often_than_allowed():
    """Drawing pairs instead of users, or not subtracting the difference, rejects 15 or more."""
    draw = torch.Generator().manual_seed(0)
    p = [ece_test([a], [b], draws=400) for a, b in (two_models(draw, 0.0) for _ in range(100))]
    assert sum(value < 0.05 for value in p) <= 10
    assert 0.35 < sum(p) / len(p) < 0.7


def test_a_model_that_is_further_off_is_found():
    first, second = two_models(torch.Generator().manual_seed(1), 1.0)
    assert ece_test([first], [second], draws=400) == 1 / 401
    assert ece_test([first], [first], draws=40) == 1


def test_bootstrap_equals_a_loop_over_drawn_users():
    """Reliability of the pairs of the drawn users, as often as they are drawn, run by run."""
    draw = torch.Generator().manual_seed(2)
    runs = [two_models(draw, 0.2) for _ in range(2)]

    def mean_difference(drawn: list[tuple[int, int]]) -> float:
        total = 0.0
        for k, models in enumerate(runs):
            users = [u for run, u in drawn if run == k]
            ece = []
            for model in models:
                rows = torch.cat([(model.user == u).nonzero().flatten() for u in users])
                ece.append(reliability(model.probability[rows], model.label[rows]).ece)
            total += (ece[0] - ece[1]) / 2
        return total

    everyone = [(k, u) for k in range(2) for u in range(60)]
    observed = mean_difference(everyone)
    places = torch.randint(120, (50, 120), generator=rng("bootstrap"))
    found = [mean_difference([everyone[place] for place in row]) for row in places.tolist()]
    further = sum(abs(value - observed) >= abs(observed) for value in found)
    assert ece_test(*zip(*runs, strict=True), draws=50) == (1 + further) / 51


def test_users_whom_all_runs_share_count_once():
    first, second = two_models(torch.Generator().manual_seed(3), 0.3)
    alone = ece_test([first], [second], draws=500)
    assert ece_test([first] * 5, [second] * 5, draws=500, shared=True) == alone
    assert ece_test([first] * 5, [second] * 5, draws=500) < alone


def test_models_asked_other_pairs_are_not_compared():
    first, second = two_models(torch.Generator().manual_seed(0), 0.0)
    other = Answers(second.probability, 1 - second.label, second.user)
    with pytest.raises(ValueError, match="ask both models the same pairs"):
        ece_test([first], [other])
