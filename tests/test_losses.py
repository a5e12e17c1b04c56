import math

import pytest
import torch
from torch import Tensor

from ccdgraph.losses import bpr, multinomial_vae, relaxed_ranking, sampled_softmax, soft_bce

INF = float("inf")


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, retain_graph=True)


def assert_equal(loss: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    """In value and in every gradient."""
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, *inputs), gradients(expected, *inputs))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def test_bpr_by_hand():
    """Differences ln 3 and 0: sigmoids 3/4 and 1/2."""
    positive, negative = torch.tensor([math.log(3.0), 2.0]), torch.tensor([0.0, 2.0])
    assert float(bpr(positive, negative)) == pytest.approx(math.log(4 / 3) + math.log(2))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3)])
def test_bpr_equals_a_loop_over_pairs_both_ways(shape):
    positive, negative = random(6), random(*shape, seed=1)
    expected = torch.zeros((), dtype=torch.float64)
    for score, others in zip(positive, negative.view(6, -1), strict=True):
        for other in others:
            expected = expected - sigmoid(score - other).log()
    assert_equal(bpr(positive, negative), expected, positive, negative)
    assert torch.autograd.gradcheck(bpr, (positive, negative))


def test_bpr_of_nothing_is_zero():
    assert bpr(torch.zeros(0), torch.zeros(0, 3)) == 0


def test_bpr_stays_finite_and_linear_at_large_scores():
    positive = torch.tensor([-1e3, 1e3], requires_grad=True)
    loss = bpr(positive, torch.zeros(2, 1))
    assert loss.item() == 1e3
    assert gradients(loss, positive)[0].tolist() == [-1.0, 0.0]


def test_sampled_softmax_by_hand():
    """Odds 3 against 1 and 2, and 2 against 2 alone: shares 1/2 and 1/2."""
    positive = torch.tensor([3.0, 2.0]).log()
    negative = torch.tensor([[1.0, 2.0], [2.0, 0.0]]).log()
    assert float(sampled_softmax(positive, negative)) == pytest.approx(2 * math.log(2))


def test_sampled_softmax_equals_a_loop_over_rows_both_ways():
    positive, negative = random(5), random(5, 4, seed=1)
    expected = torch.zeros((), dtype=torch.float64)
    for score, others in zip(positive, negative, strict=True):
        total = score.exp()
        for other in others:
            total = total + other.exp()
        expected = expected - (score.exp() / total).log()
    assert_equal(sampled_softmax(positive, negative), expected, positive, negative)
    assert torch.autograd.gradcheck(sampled_softmax, (positive, negative))


def test_sampled_softmax_without_any_negative_is_zero_and_has_no_gradient():
    positive = torch.tensor([1.0, -1e3], requires_grad=True)
    loss = sampled_softmax(positive, torch.full((2, 3), -INF))
    assert loss.item() == 0
    assert gradients(loss, positive)[0].tolist() == [0.0, 0.0]


def test_sampled_softmax_stays_finite_and_linear_at_large_scores():
    positive = torch.tensor([-1e3, 1e3], requires_grad=True)
    loss = sampled_softmax(positive, torch.zeros(2, 1))
    assert loss.item() == 1e3
    assert gradients(loss, positive)[0].tolist() == [-1.0, 0.0]


def naive_ranking(listed: Tensor, rest: Tensor, real: Tensor) -> Tensor:
    """The equation, one user and one place at a time; padding lies anywhere."""
    total = listed.new_zeros(())
    for row in range(len(listed)):
        scores = [s for s, keep in zip(listed[row], real[row], strict=True) if keep]
        for place in range(len(scores)):
            below = sum(s.exp() for s in scores[place:]) + rest[row].exp()
            total = total - (scores[place].exp() / below).log()
    return total


def test_relaxed_ranking_by_hand():
    """List ln 2, ln 1, rest ln 3: probabilities 2 / (2 + 1 + 3) and 1 / (1 + 3)."""
    listed, rest = torch.tensor([[math.log(2), 0.0]]), torch.tensor([math.log(3)])
    assert float(relaxed_ranking(listed, rest)) == pytest.approx(math.log(3) + math.log(4))


def test_relaxed_ranking_equals_a_loop_over_places_both_ways():
    listed, rest = random(5, 4), random(5, seed=1)
    everything = torch.ones(5, 4, dtype=torch.bool)
    expected = naive_ranking(listed, rest, everything)
    for loss in (relaxed_ranking(listed, rest), relaxed_ranking(listed, rest, everything)):
        assert_equal(loss, expected, listed, rest)
    assert torch.autograd.gradcheck(relaxed_ranking, (listed, rest))


def test_padding_of_a_list_counts_for_nothing():
    """Full, short and empty rows, also with a hole; what stands under padding is not read."""
    listed, rest = random(4, 3), random(4, seed=1)
    real = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]], dtype=torch.bool)
    loss, expected = relaxed_ranking(listed, rest, real), naive_ranking(listed, rest, real)
    assert_equal(loss, expected, listed, rest)
    assert not gradients(loss, listed)[0][~real].any()
    other = listed.detach().masked_fill(~real, 1e3)
    torch.testing.assert_close(relaxed_ranking(other, rest, real), expected)
    assert torch.autograd.gradcheck(lambda *x: relaxed_ranking(*x, real), (listed, rest))


@pytest.mark.parametrize(("listed", "rest", "constant"), [(40, 40, 163.35248), (20, 20, 67.98502)])
def test_equal_scores_give_the_published_constants(listed, rest, constant):
    """ln(80! / 40!) a user and ln(40! / 20!) an item, of the papers' logs."""
    loss = relaxed_ranking(torch.zeros(1, listed), torch.tensor([math.log(rest)]))
    assert float(loss) == pytest.approx(constant, rel=1e-6)
    both = math.lgamma(listed + rest + 1) - math.lgamma(rest + 1)
    assert both == pytest.approx(constant, rel=1e-7)


def test_a_list_without_a_rest_costs_its_order_alone():
    """The last of the list is then certain: 2/3 of 2 over 2 + 1."""
    listed = torch.tensor([[math.log(2), 0.0]], requires_grad=True)
    loss = relaxed_ranking(listed, torch.tensor([-INF]))
    assert float(loss.detach()) == pytest.approx(math.log(1.5))
    assert gradients(loss, listed)[0].isfinite().all()


def test_rows_of_padding_without_a_rest_stay_finite():
    listed = torch.zeros(1, 2, requires_grad=True)
    loss = relaxed_ranking(listed, torch.tensor([-INF]), torch.zeros(1, 2, dtype=torch.bool))
    assert loss.item() == 0 and gradients(loss, listed)[0].tolist() == [[0.0, 0.0]]


def test_ranking_of_nobody_is_zero():
    assert relaxed_ranking(torch.zeros(0, 3), torch.zeros(0)) == 0
    assert relaxed_ranking(torch.zeros(2, 0), torch.zeros(2)) == 0


def test_relaxed_ranking_stays_finite_and_unclamped_at_large_scores():
    listed = torch.tensor([[-1e3, 1e3]], requires_grad=True)
    rest = torch.tensor([0.0], requires_grad=True)
    loss = relaxed_ranking(listed, rest)
    assert loss.item() == 2e3
    slopes = gradients(loss, listed, rest)[0].tolist()
    assert slopes == [[pytest.approx(-1, abs=1e-3), pytest.approx(1, abs=1e-3)]]


def test_soft_bce_by_hand():
    """Score ln 3 (probability 3/4) with label 1/2: the mean of ln 4/3 and ln 4."""
    loss = soft_bce(torch.tensor([math.log(3.0)]), torch.tensor([0.5]))
    assert float(loss) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_soft_bce_equals_a_loop_both_ways():
    score, label = random(7), sigmoid(random(7, seed=1)).detach()
    expected = torch.zeros((), dtype=torch.float64)
    for s, y in zip(score, label, strict=True):
        expected = expected - y * sigmoid(s).log() - (1 - y) * sigmoid(-s).log()
    assert_equal(soft_bce(score, label), expected, score)
    assert torch.autograd.gradcheck(soft_bce, (score, label))


def test_soft_bce_at_the_edges():
    assert soft_bce(torch.zeros(0), torch.zeros(0)) == 0
    score = torch.tensor([1e3, -1e3, 1e3, -1e3], requires_grad=True)
    loss = soft_bce(score, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert loss.item() == 2e3
    assert gradients(loss, score)[0].tolist() == [0.0, 0.0, 1.0, -1.0]


def test_the_variational_loss_by_hand():
    """Probability 1/4 of the one observed item; mean 2, variance 1: a divergence of 2."""
    scores, target = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[1.0, 0.0]])
    loss = multinomial_vae(scores, target, torch.tensor([[2.0]]), torch.zeros(1, 1), 0.1)
    assert float(loss) == pytest.approx(math.log(4) + 0.1 * 2)


def test_the_variational_loss_equals_a_loop_both_ways():
    scores, mean, log_variance = random(4, 5), random(4, 2, seed=1), random(4, 2, seed=2)
    target = random(4, 5, seed=3).detach().clamp(min=0)
    expected = torch.zeros((), dtype=torch.float64)
    for u in range(4):
        total = sum(s.exp() for s in scores[u])
        for i in range(5):
            expected = expected - target[u, i] * (scores[u, i].exp() / total).log()
        for k in range(2):
            variance = log_variance[u, k].exp()
            term = mean[u, k] ** 2 + variance - variance.log() - 1
            expected = expected + 0.2 / 2 * term
    inputs = (scores, mean, log_variance)
    assert_equal(multinomial_vae(scores, target, *inputs[1:], 0.2), expected, *inputs)
    assert torch.autograd.gradcheck(lambda s, m, v: multinomial_vae(s, target, m, v, 0.2), inputs)


def test_the_variational_loss_at_the_edges():
    none = torch.zeros(0, 3)
    assert multinomial_vae(none, none, none, none, 0.2) == 0
    zero = torch.zeros(1, 2)
    assert multinomial_vae(zero, zero, zero, zero, 0.2) == 0  # a user without an item
    scores = torch.tensor([[1e3, -1e3]], requires_grad=True)
    loss = multinomial_vae(scores, torch.tensor([[0.0, 1.0]]), zero, zero, 0.2)
    assert loss.item() == 2e3
    assert gradients(loss, scores)[0].tolist() == [[1.0, -1.0]]
