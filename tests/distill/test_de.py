import pytest
import torch
from planted import (
    NUM_ITEMS,
    SameNoise,
    embeddings,
    everyone,
    generator,
    learn,
    leaves,
    similarity,
    triplets,
)
from torch.nn import functional

from ccdgraph.distill.de import DE
from ccdgraph.distill.hints import Experts
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term
from ccdgraph.train import Term

DIM, TEACHER_DIM, M = 3, 5, 4


def make(teacher=None, **options) -> DE:
    return DE(
        teacher or embeddings(TEACHER_DIM, 1),
        DIM,
        num_experts=options.pop("num_experts", M),
        generator=generator(7),
        **options,
    )


def looped(experts: Experts, student, choice):
    """Every expert on its own, as M pairs of linear layers."""
    hidden = experts.first.size(1) // experts.num_experts
    total = 0
    for m in range(experts.num_experts):
        part = slice(m * hidden, (m + 1) * hidden)
        inner = functional.linear(student, experts.first[:, part].T, experts.first_bias[part])
        outer = functional.linear(inner.relu(), experts.last[part].T, experts.last_bias[m])
        total = total + choice[:, m : m + 1] * outer
    return total


def test_folded_experts_equal_a_loop_over_experts():
    experts = Experts(20, 200, 30, generator=generator())
    student, teacher = torch.randn(50, 20, generator=generator(1)), torch.randn(50, 200)
    choice = experts.choose(teacher, 0.7, generator(2))
    ours, theirs = experts(student, choice), looped(experts, student, choice)
    assert float((ours - theirs).detach().abs().max()) < 1e-6


def test_parameter_counts_are_the_published_ones():
    teacher = Embeddings(torch.zeros(1, 200), torch.zeros(1, 200))
    term = DE(teacher, 20, num_experts=30, generator=generator())
    count = {name: p.numel() for name, p in term.named_parameters()}
    gates = sum(n for name, n in count.items() if ".gate" in name)
    assert gates == 12_060
    assert sum(count.values()) - gates == 1_470_600
    assert sum(count.values()) + (5219 + 25181 + 2) * 20 == 2_090_700


def test_each_expert_starts_like_a_linear_layer_of_its_own():
    """Bounds 1/sqrt(dS) and 1/sqrt(h): a fan-in of all experts would make the last 5 times less."""
    experts = Experts(20, 200, 30, generator=generator())
    assert 0.99 / 20**0.5 < float(experts.first.detach().abs().max()) <= 1 / 20**0.5
    assert 0.99 / 110**0.5 < float(experts.last.detach().abs().max()) <= 1 / 110**0.5


def test_the_hidden_layer_is_half_as_wide_when_the_widths_are_equal():
    assert Experts(6, 6, 1, generator=generator()).first.shape == (6, 3)
    assert Experts(1, 1, 1, generator=generator()).first.shape == (1, 1)


def test_the_choice_equals_the_equation():
    experts, teacher = Experts(DIM, TEACHER_DIM, M, generator=generator()), torch.randn(9, 5)
    ours = experts.choose(teacher, 0.3, generator(3))
    uniform = torch.empty(9, M).exponential_(generator=generator(3))  # exp(-gumbel)
    share = functional.linear(teacher, experts.gate.T, experts.gate_bias).softmax(1)
    expected = ((share.log() - uniform.log()) / 0.3).softmax(1)
    torch.testing.assert_close(ours, expected)


def test_the_noise_is_gumbel():
    """The largest of log p + g is a draw from p: frequencies within 4 standard errors."""
    experts = Experts(DIM, TEACHER_DIM, M, generator=generator())
    teacher = torch.randn(1, TEACHER_DIM, generator=generator(5)).expand(20_000, -1)
    place = experts.choose(teacher, 1.0, generator(4)).argmax(1)
    share = experts.logits(teacher[:1]).softmax(1).squeeze(0).detach()
    found = torch.bincount(place, minlength=M) / 20_000
    assert ((found - share).abs() < 4 * (share * (1 - share) / 20_000).sqrt()).all()


def test_the_loss_equals_a_loop_over_entities():
    term, out, batch = make(), embeddings(DIM), triplets()
    term.generator.manual_seed(3)
    loss = term(out, batch)
    draw, expected = generator(3), 0
    sides = (
        (term.user_experts, term.teacher.user, out.user, [0, 3, 5], 1.0),
        (term.item_experts, term.teacher.item, out.item, [1, 2, 7, 1, 4, 6], 0.5),
    )
    for experts, teacher, student, ids, weight in sides:
        choice = experts.choose(teacher[ids], 1.0, draw)
        for place, entity in enumerate(ids):
            guess = looped(experts, student[entity : entity + 1], choice[place : place + 1])
            expected = expected + weight * ((teacher[entity] - guess) ** 2).sum()
    torch.testing.assert_close(loss, expected)


def test_one_entity_by_hand():
    """Width 1, one expert: 2 relu(3 s + 1) - 1 is 13 at s = 2 and -1 at s = -1."""
    teacher = Embeddings(torch.tensor([[10.0]]), torch.tensor([[0.0]]))
    term = DE(teacher, 1, num_experts=1, generator=generator())
    for experts in (term.user_experts, term.item_experts):
        for name, value in (("first", 3), ("first_bias", 1), ("last", 2), ("last_bias", -1)):
            getattr(experts, name).data.fill_(value)
    out = Embeddings(torch.tensor([[2.0]]), torch.tensor([[-1.0]]))
    batch = Triplets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0]]))
    assert float(term(out, batch).detach()) == pytest.approx((10 - 13) ** 2 + 0.5 * (1 + 1))


def test_the_temperature_falls_geometrically_and_stays_at_its_end():
    term = make(epochs=10, last_temperature=1e-4)
    seen = []
    for epoch in (0, 5, 10, 11):
        term.begin_epoch(epoch)
        seen.append(float(term.temperature))
    assert seen == pytest.approx([1.0, 1e-2, 1e-4, 1e-4])


def test_the_last_temperature_is_finite_and_picks_one_expert():
    term, out = make(epochs=1), leaves(embeddings(DIM))
    term.begin_epoch(1)
    loss = term(out, triplets())
    grads = torch.autograd.grad(loss, [out.user, out.item, *term.parameters()])
    assert loss.isfinite() and all(g.isfinite().all() for g in grads)
    choice = term.user_experts.choose(term.teacher.user, term.temperature, generator())
    assert choice.sort(1).values[:, -1].tolist() == [1.0] * len(choice)


def test_contract():
    teacher = leaves(embeddings(TEACHER_DIM, 1))
    term = SameNoise(make(teacher, num_experts=2))
    check_term(term, embeddings(DIM), triplets(), frozen=(teacher.user, teacher.item))


def test_a_batch_of_one_row():
    batch = Triplets(torch.tensor([2]), torch.tensor([0]), torch.tensor([[0]]))
    out = leaves(embeddings(DIM))
    grads = torch.autograd.grad(make()(out, batch), (out.user, out.item))
    assert grads[0][2].any() and not grads[0][:2].any() and not grads[1][1:].any()


def test_a_teacher_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match=r"'teacher' has 6 users and 8 items, the student 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())


def test_a_student_of_another_width_is_refused():
    with pytest.raises(ValueError, match="width 4, 'dim' is 3"):
        make()(embeddings(4), triplets())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_that_is_not_finite_is_refused(value):
    teacher = embeddings(TEACHER_DIM)
    teacher.item[2, 1] = value
    with pytest.raises(ValueError, match="'teacher' has NaN or infinite item"):
        make(teacher)


class OfAnother(Term):
    """The mutation: every entity regresses the teacher's embedding of its neighbour by id."""

    def __init__(self, teacher) -> None:
        super().__init__()
        self.term = make(Embeddings(teacher.user.roll(1, 0), teacher.item.roll(1, 0)))

    def forward(self, out, batch):
        return self.term(out, batch)


def test_the_student_takes_over_the_geometry_of_the_teacher():
    """Two planted groups; indexing the teacher by anything but the entity's id fails."""
    sign = torch.tensor([1.0, 1, -1, -1, 1, -1, 1, -1])[:NUM_ITEMS]
    axis = torch.ones(1, TEACHER_DIM)
    teacher = Embeddings(sign[:6, None] * axis, sign[:, None] * axis)
    start = embeddings(DIM)
    start = Embeddings(start.user / 10, start.item / 10)
    found = [
        similarity(learn(term, start, everyone(), steps=100).item, teacher.item)
        for term in (make(teacher), OfAnother(teacher))
    ]
    assert found[0] > 0.8 > 0.4 > found[1]
