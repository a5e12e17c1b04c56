import pytest
import torch
from planted import double, embeddings, everyone, generator, learn, leaves, triplets
from torch.nn import functional

from ccdgraph.distill.alignment import aligned
from ccdgraph.distill.regression import Regression
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term

DIM, TEACHER_DIM = 3, 5


def make(teacher=None, dim: int = DIM) -> Regression:
    return Regression(teacher or embeddings(TEACHER_DIM, 1), dim, generator=generator(7))


def test_one_entity_by_hand():
    """Map 3 s + 1 and teacher 10, 0: errors 10 - 7 and 0 - (-2), the item once at weight 1/2."""
    term = make(Embeddings(torch.tensor([[10.0]]), torch.tensor([[0.0]])), 1)
    for side in (term.user, term.item):
        side.weight.data.fill_(3.0)
        side.bias.data.fill_(1.0)
    out = Embeddings(torch.tensor([[2.0]]), torch.tensor([[-1.0]]))
    positive = Triplets(torch.tensor([0]), torch.tensor([0]), torch.empty(1, 0, dtype=torch.int64))
    assert float(term(out, positive).detach()) == 9 + 0.5 * 4
    twice = Triplets(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([[0], [0]]))
    assert float(term(out, twice).detach()) == 9 + 0.5 * (4 + 4)  # a positive and a negative


def test_the_loss_equals_a_loop_over_entities():
    term, out = make(), embeddings(DIM)
    expected = 0.0
    sides = (
        (term.user, term.teacher.user, out.user, [0, 3, 5], 1.0),
        (term.item, term.teacher.item, out.item, [1, 2, 7, 1, 4, 6], 0.5),
    )
    for side, teacher, student, ids, weight in sides:
        for entity in ids:
            for place in range(TEACHER_DIM):
                guess = float(side.bias.detach()[place])
                for own in range(DIM):
                    guess += float(side.weight.detach()[place, own] * student[entity, own])
                expected += weight * (float(teacher[entity, place]) - guess) ** 2
    assert float(term(out, triplets()).detach()) == pytest.approx(expected, rel=1e-5)


def test_contract():
    teacher = leaves(embeddings(TEACHER_DIM, 1))
    check_term(make(teacher), embeddings(DIM), triplets(), frozen=(teacher.user, teacher.item))


def test_an_empty_batch_costs_nothing():
    none = torch.empty(0, dtype=torch.int64)
    assert float(make()(embeddings(DIM), Triplets(none, none, none.view(0, 1))).detach()) == 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="'teacher' has 6 users and 8 items, the student 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())
    with pytest.raises(ValueError, match="width 4, 'dim' is 3"):
        make()(embeddings(4), triplets())
    diverged = embeddings(TEACHER_DIM)
    diverged.user[1, 1] = float("nan")
    with pytest.raises(ValueError, match="'teacher' has NaN or infinite user"):
        make(diverged)


def test_maps_hold_for_a_refreshed_teacher_once_it_is_turned_back():
    """Planted: the teacher is a map of the student, then turned; as it is, the maps are wrong.

    A teacher that is looked up by another id fails the first bound.
    """
    student, draw = double(embeddings(DIM, 2)), generator(3)
    mix, turn = torch.randn(DIM, TEACHER_DIM, generator=draw).double(), generator(4)
    before = Embeddings(student.user @ mix, student.item @ mix)
    square = torch.linalg.qr(torch.randn(TEACHER_DIM, TEACHER_DIM, generator=turn).double()).Q
    refreshed = Embeddings(before.user @ square, before.item @ square)
    term = make(before).double()
    optimizer = torch.optim.LBFGS(term.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = term(student, everyone())
        loss.backward()
        return loss

    optimizer.step(step)
    assert float(term(student, everyone()).detach()) < 1e-3
    errors = []
    for teacher in (refreshed, aligned(refreshed, before)):
        later = make(teacher).double()
        later.load_state_dict(term.state_dict())
        errors.append(float(later(student, everyone()).detach()))
    assert errors[1] < 1e-2 < 1 < errors[0]


def left_over(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Squared error of the best linear map."""
    own = functional.pad(student, (0, 1), value=1.0)
    return float((teacher - own @ torch.linalg.lstsq(own, teacher).solution).square().sum())


def test_the_student_moves_towards_the_teacher():
    """The mutation: every entity regresses the teacher's embedding of its neighbour by id."""
    teacher = embeddings(DIM + 1, 5)
    rolled = Embeddings(teacher.user.roll(1, 0), teacher.item.roll(1, 0))
    right, wrong = (
        learn(make(known), embeddings(DIM), everyone(), steps=300) for known in (teacher, rolled)
    )
    for side in ("user", "item"):
        errors = [left_over(getattr(out, side), getattr(teacher, side)) for out in (right, wrong)]
        assert errors[0] < 0.5 * errors[1]
