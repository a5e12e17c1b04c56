import math

import pytest
import torch
from small_learner import LEARNING, SMALL, check, every_setting, learn, planted, recall, small
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual import PISA, FineTune, FineTuneConfig, PISAConfig
from ccdgraph.continual.kmeans import kmeans
from ccdgraph.continual.pisa import Alignment, alignment, divergence, largest
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term


@every_setting
def test_keeps_the_contract(settings):
    check(lambda c: PISA(PISAConfig(**c, num_clusters=4), seed=3), settings)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"num_clusters": 0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="a share lies in"):
        PISAConfig(**wrong)


def random_out(num_users: int, num_items: int, seed: int) -> Embeddings:
    generator, options = rng("pisa", seed), {"dtype": torch.float64}
    return Embeddings(
        *(torch.randn(n, 3, generator=generator, **options) for n in (num_users, num_items))
    )


def lists(rows: list[list[int]], num_items: int) -> UserItems:
    user = torch.tensor([u for u, items in enumerate(rows) for _ in items])
    item = torch.tensor([i for items in rows for i in items])
    return UserItems.from_interactions([Interactions(user, item)], len(rows), num_items)


# Five old users and items; user 5 and item 5 are new; user 3 has no old and user 1 no new items.
THEN, NOW = [[0, 1], [2], [1, 4], [], [3]], [[2], [], [0, 5], [4], [1], [5, 2]]
OLD, PLASTIC, OUT = random_out(5, 5, 0), random_out(6, 6, 1), random_out(6, 6, 2)
BATCH = Triplets(torch.tensor([5, 0, 2, 3, 0, 4, 1]), torch.zeros(7).long(), torch.zeros(7, 1))


def build(old: Embeddings = OLD, plastic: Embeddings = PLASTIC, **options) -> Alignment:
    options = {"num_clusters": 3, "temperature": 0.4, "generator": rng("centres")} | options
    return Alignment(plastic, old, lists(NOW, 6), lists(THEN, 5), **options)


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def naive_weights(users: list[int]) -> list[float]:
    centre = kmeans(OUT.item, 3, generator=rng("centres"))[0]
    shift = {}
    for u in users:
        if u < 5:
            p, q = (softmax([float(c @ e.user[u]) for c in centre]) for e in (OLD, OUT))
            m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
            kl = [sum(a * math.log(a / b) for a, b in zip(x, m, strict=True)) for x in (p, q)]
            shift[u] = sum(kl) / 2
    mean = sum(shift.values()) / len(shift)
    return [1 / (1 + math.exp(mean - shift[u])) if u in shift else 0.5 for u in users]


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_the_term_equals_a_loop_over_the_equation(share):
    """User 0 comes twice and is aligned once; the factor restores the scale of a sum."""
    users = [0, 1, 2, 3, 4, 5]
    weight, num = naive_weights(users), math.ceil(share * 6)
    moved = sorted(users, key=lambda u: -weight[u])[:num]
    stayed = sorted(users, key=lambda u: weight[u])[:num]

    def loss(anchor: Tensor, user: int) -> float:
        score = [math.exp(cosine(anchor, OUT.user[v]) / 0.4) for v in users]
        return -math.log(score[user] / sum(score))

    expected = 0.0
    for u in users:
        if u in moved:
            expected += weight[u] * loss(PLASTIC.user[u], u)
            if NOW[u]:
                expected += weight[u] * loss(PLASTIC.item[NOW[u]].mean(0), u)
        if u in stayed and u < 5:
            expected += (1 - weight[u]) * loss(OLD.user[u], u)
            if THEN[u]:
                expected += (1 - weight[u]) * loss(OLD.item[THEN[u]].mean(0), u)
    term = build(share=share)
    term.begin_epoch(0)
    assert float(term(OUT, BATCH)) == pytest.approx(expected * 7 / 6)


def test_alignment_has_the_right_gradient_and_edges():
    generator = rng("alignment")
    anchor, current = torch.randn(2, 4, 4, generator=generator).double()
    current.requires_grad_()
    weight = torch.tensor([0.2, 0.0, 1.0, 0.0])
    counts = torch.tensor([True, True, True, False])
    assert torch.autograd.gradcheck(lambda x: alignment(anchor, x, weight, counts), current)
    alone = alignment(anchor[:1], current[:1], weight[:1], counts[:1])
    assert float(alone.detach()) == pytest.approx(0.0), "one user has nobody to be told from"
    large = alignment(anchor * 1e3, current * 1e3, weight, counts)
    torch.testing.assert_close(large, alignment(anchor, current, weight, counts))
    assert alignment(torch.zeros_like(anchor), current, weight, counts).isfinite()


def test_the_term_is_finite_and_teaches_no_teacher():
    """Weights are constants on purpose, so numerical gradients are left to ``alignment``."""
    frozen = [x.float().requires_grad_() for e in (OLD, PLASTIC) for x in (e.user, e.item)]
    term = build(Embeddings(*frozen[:2]), Embeddings(*frozen[2:]))
    out = Embeddings(OUT.user.float(), OUT.item.float())
    check_term(term, out, BATCH, frozen=frozen, wrt=())


def test_divergence_by_hand():
    """Of (1/2, 1/2) and (1, 0), whose middle is (3/4, 1/4); of equal rows it is nought."""
    half, sure = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 1e-30]]).log()
    m = [0.75, 0.25]
    expected = (0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1]) + math.log(1 / m[0])) / 2
    assert float(divergence(half, sure)) == pytest.approx(expected)
    assert float(divergence(half, half)) == pytest.approx(0.0, abs=1e-7)


def test_the_largest_weights_stay():
    weight, every = torch.tensor([0.2, 0.9, 0.5, 0.5, 0.1]), torch.ones(5, dtype=torch.bool)
    assert largest(weight, 0.4, every).tolist() == pytest.approx([0.0, 0.9, 0.5, 0.0, 0.0])
    assert torch.equal(largest(weight, 1.0, every), weight)
    some = torch.tensor([True, False, True, True, False])
    assert largest(weight, 0.3, some).tolist() == pytest.approx([0.0, 0.0, 0.5, 0.0, 0.0])
    assert largest(weight[:0], 0.5, every[:0]).tolist() == []


def test_centres_are_found_anew_in_every_epoch():
    term = build()
    term.begin_epoch(0)
    term(OUT, BATCH)
    first = term.centre
    term(PLASTIC, BATCH)
    assert term.centre is first
    term.begin_epoch(1)
    term(PLASTIC, BATCH)
    assert not torch.equal(term.centre, first)


def test_the_first_pass_is_fine_tuning():
    """Its embeddings are those of fine-tuning, with the draws of the same seed."""
    learner, plain = PISA(PISAConfig(**SMALL)), FineTune(FineTuneConfig(**SMALL))
    for strategy in (learner, plain):
        learn(strategy, small().blocks[:2])
    assert torch.equal(learner._plastic.user, plain.served.user)
    assert not torch.allclose(learner.served.user, plain.served.user)


def test_keeps_more_of_the_past_than_fine_tuning_and_learns_the_new():
    """Mutation: no alignment, which is fine-tuning."""
    old, new = recall(PISA(PISAConfig(weight=2.0, **LEARNING)), planted(), 0, 2)
    (lost,) = recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)
    assert old > lost + 0.08 and new > 0.65
