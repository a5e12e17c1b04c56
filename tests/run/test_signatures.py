import pytest
import torch

from ccdgraph.metrics import AccuracyMatrix
from ccdgraph.run.signatures import (
    blind,
    collapsed,
    falling,
    signatures,
    spread,
    stagnating,
)


def matrix(*rows) -> AccuracyMatrix:
    """An accuracy matrix of its lower triangle."""
    built = AccuracyMatrix.empty(len(rows))
    for learnt, row in enumerate(rows):
        for tested, value in enumerate(row):
            built = built.set(learnt, tested, value)
    return built


STEADY = matrix([0.30], [0.29, 0.30], [0.29, 0.28, 0.30], [0.28, 0.28, 0.27, 0.30])
DIAGONAL_FALLS = matrix([0.30], [0.4, 0.25], [0.5, 0.5, 0.20], [0.6, 0.6, 0.6, 0.15])
ALL_FALL = matrix([0.30], [0.2, 0.30], [0.1, 0.2, 0.30], [0.05, 0.1, 0.2, 0.30])


def test_quality_that_falls_block_after_block_is_seen():
    assert falling("student", STEADY, 3) is None
    found = falling("student", DIAGONAL_FALLS, 3)
    assert (found.kind, found.scorer, found.block) == ("falling", "student", 3)
    assert "on the newest block falls block after block: to 83%, 80%, 75%" in found[3]
    # .2 of .3, .3 of .5 and .35 of .6
    expected = "on the older blocks falls block after block: to 67%, 60%, 58%"
    assert expected in falling("student", ALL_FALL, 3).message


def test_blocks_that_get_harder_are_no_fall_of_what_was_learnt():
    harder = matrix([0.50], [0.5, 0.40], [0.5, 0.4, 0.30], [0.5, 0.4, 0.3, 0.30])
    assert harder.retained_average(3) < harder.retained_average(0)
    assert falling("teacher", harder, 3) is None


def test_falling_needs_three_losses_in_a_row():
    assert falling("student", DIAGONAL_FALLS, 2) is None
    recovers = matrix([0.30], [0.4, 0.25], [0.5, 0.5, 0.26], [0.6, 0.6, 0.6, 0.15])
    assert falling("student", recovers, 3) is None


def test_falling_of_a_diagonal_alone_is_seen():
    """Under the protocol ``next`` nothing but the diagonal is measured."""
    alone = AccuracyMatrix.empty(5)
    for block, value in enumerate((0.4, 0.3, 0.2, 0.1)):
        alone = alone.set(block, block, value)
    assert falling("student", alone, 3) is not None
    assert falling("student", alone, 4) is None  # the last block has nothing to be tested on


def test_spread_is_that_of_hand_arithmetic():
    """Shares 1/2, 1/4, 1/4: the entropy is 1.5 log 2, its exponential 2 ** 1.5."""
    found = spread(torch.tensor([[0, 1], [0, 2], [-1, -1]]), 10)
    assert found.coverage == pytest.approx(0.3)
    assert found.effective == pytest.approx(2**1.5, abs=1e-6)


def test_one_list_for_everyone_is_a_collapse():
    same = torch.arange(5).expand(40, 5)
    found = collapsed("student", same, 100, 2)
    assert (found.kind, found.block) == ("collapsed", 2)
    assert "effectively 5.0 different items, 5.0% of the catalogue" in found.message
    nearly = same.clone()
    nearly[:2] += 20
    assert collapsed("student", nearly, 100, 2) is not None


def test_lists_that_differ_are_no_collapse():
    generator = torch.Generator().manual_seed(0)
    lists = torch.stack([torch.randperm(100, generator=generator)[:5] for _ in range(40)])
    assert collapsed("student", lists, 100, 2) is None
    # Eight items leave hardly anything else to list, and one user cannot differ from the others.
    assert collapsed("student", torch.arange(5).expand(40, 5), 8, 2) is None
    assert collapsed("student", torch.arange(5).expand(1, 5), 100, 2) is None


def test_a_proxy_below_popularity_or_chance_is_blind():
    sees = matrix([0.30], [0.20, 0.20])
    assert blind("stability", sees, 1, popularity=[0.1, 0.1], chance=0.01) is None
    found = blind("stability", sees, 1, popularity=[0.1, 0.35], chance=0.01)
    assert "predicts no better than the most popular items: 0.2000 against 0.2250" in found.message
    zero = matrix([0.30], [0.0, 0.0])
    assert "random lists" in blind("plasticity", zero, 1, popularity=[0, 0], chance=0.01).message
    nothing = AccuracyMatrix.empty(2)
    assert blind("stability", nothing, 1, popularity=[None] * 2, chance=0.01) is None


def test_a_teacher_that_stands_still_stagnates():
    student = matrix([0.1], [0.1, 0.1], [0.1, 0.1, 0.1])
    still = matrix([0.3], [0.3, 0.2], [0.3, 0.2, 0.4])
    assert "changed its accuracy on no earlier block" in stagnating("teacher", still, student, 2)[3]
    learns = matrix([0.3], [0.29, 0.2], [0.29, 0.19, 0.4])
    assert stagnating("teacher", learns, student, 2) is None
    assert stagnating("teacher", learns, student, 0) is None


def test_a_teacher_whose_student_is_as_good_stagnates():
    teacher = matrix([0.3], [0.29, 0.20], [0.28, 0.19, 0.20])
    ahead = matrix([0.1], [0.1, 0.21], [0.1, 0.1, 0.25])
    found = stagnating("teacher", teacher, ahead, 2)
    assert "its student is as good, 0.2000 against 0.2500" in found.message
    once = matrix([0.1], [0.1, 0.15], [0.1, 0.1, 0.25])
    assert stagnating("teacher", teacher, once, 2) is None


def test_every_scorer_is_judged_by_its_part():
    matrices = {"student": ALL_FALL, "teacher": STEADY, "stability": ALL_FALL, "other": STEADY}
    found = signatures(matrices, 3, served="student", popularity=[0.5] * 4, chance=0.01)
    assert [(s.kind, s.scorer) for s in found] == [
        ("falling", "student"),
        ("stagnating", "teacher"),
        ("blind", "stability"),
    ]
    assert signatures({}, 0, served="", popularity=[], chance=0.1) == []
