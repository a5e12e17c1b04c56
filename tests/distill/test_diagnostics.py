import math

import pytest
import torch
from planted import embeddings, generator, user_items
from scipy.stats import kendalltau

from ccdgraph.distill.diagnostics import agreement, kendall_tau, linear_cka, overlap
from ccdgraph.nn import Embeddings

PAIRS = [(0, 1), (0, 4), (3, 1), (3, 2), (3, 7), (5, 7), *((2, i) for i in range(8))]


def test_overlap_equals_sets():
    student = torch.stack([torch.randperm(12, generator=generator(s))[:5] for s in range(9)])
    teacher = torch.stack([torch.randperm(12, generator=generator(s + 50))[:5] for s in range(9)])
    teacher[4, 2:] = -1
    student[4, 1:] = -1
    teacher[6] = -1
    for u, found in enumerate(overlap(student, teacher).tolist()):
        wanted = {i for i in teacher[u].tolist() if i >= 0}
        if not wanted:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(len(wanted & set(student[u].tolist())) / len(wanted))


def test_tau_by_hand_and_equal_to_scipy():
    assert kendall_tau(torch.tensor([[4.0, 3.0, 2.0], [1.0, 2.0, 3.0]])).tolist() == [1.0, -1.0]
    scores = torch.randn(20, 7, generator=generator())
    expected = [kendalltau(range(7), [-s for s in row]).statistic for row in scores.tolist()]
    assert kendall_tau(scores).tolist() == pytest.approx(expected)


def test_tau_with_ties_and_padding():
    """Ties count 0 of the 3 pairs; the padded place is in none; one item has no pair."""
    scores = torch.tensor([[1.0, 1.0, 0.0, 9.0], [1.0, 2.0, 3.0, 4.0]])
    real = torch.tensor([[True, True, True, False], [True, False, False, False]])
    first, second = kendall_tau(scores, real).tolist()
    assert first == pytest.approx(2 / 3) and math.isnan(second)


def test_tau_of_large_scores():
    assert float(kendall_tau(torch.tensor([[1e3, -1e3, 0.0]]))) == pytest.approx(1 / 3)


def test_cka_by_hand():
    """Centred columns (1, 0, -1) and (1, -2, 1) are orthogonal; each agrees with itself."""
    x, y = torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([[1.0], [-2.0], [1.0]])
    assert linear_cka(x, y) == 0 and linear_cka(x, x) == pytest.approx(1)
    both = torch.cat([x, y], dim=1)  # eigenvalues 2 and 6: 2^2 / (2 sqrt(4 + 36))
    assert linear_cka(x, both) == pytest.approx(2 / math.sqrt(40))


def test_cka_equals_centred_kernels():
    x, y = (torch.randn(15, d, generator=generator(d)).double() for d in (3, 6))
    centre = torch.eye(15).double() - 1 / 15
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    expected = (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()
    assert linear_cka(x, y) == pytest.approx(float(expected))


def test_cka_ignores_rotation_and_scale():
    x = torch.randn(20, 4, generator=generator())
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator(1)))[0]
    assert linear_cka(3 * x @ turn + 5, x) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("budget", [1, 2**20])
def test_agreement_equals_a_loop_over_users(budget):
    student, teacher, k = embeddings(3, 1), embeddings(5, 2), 4
    found = agreement(student, teacher, user_items(PAIRS), k=k, budget=budget)
    shares, taus = [], []
    for u in (0, 1, 3, 4, 5):  # user 2 has seen everything
        free = [i for i in range(8) if (u, i) not in PAIRS]
        s, t = ((out.user[u] @ out.item.T).tolist() for out in (student, teacher))
        own, top = (sorted(free, key=lambda i, x=x: -x[i])[:k] for x in (s, t))
        shares.append(len(set(own) & set(top)) / len(top))
        taus.append(kendalltau(range(len(top)), [-s[i] for i in top]).statistic)
    assert found.overlap == pytest.approx(sum(shares) / 5)
    assert found.kendall_tau == pytest.approx(sum(taus) / 5)


def test_a_student_agrees_with_itself():
    out = embeddings(3)
    found = agreement(out, out, user_items(PAIRS), k=5)
    assert (found.overlap, found.kendall_tau) == (1.0, 1.0)


def test_bad_input_is_refused():
    seen = user_items([])
    with pytest.raises(ValueError, match=r"'student' scores \(6, 8\).*'teacher' \(6, 9\)"):
        agreement(embeddings(3), embeddings(3, items=9), seen, k=3)
    with pytest.raises(ValueError, match="'student' has 6 rows, 'teacher' 8"):
        linear_cka(embeddings(3).user, embeddings(3).item)
    broken = Embeddings(torch.full((6, 3), float("nan")), embeddings(3).item)
    with pytest.raises(ValueError, match="NaN"):
        agreement(embeddings(3), broken, seen, k=3)
