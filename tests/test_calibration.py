import math

import pytest
import torch

from ccdgraph.calibration import labelled_pairs, predicted, reliability
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
