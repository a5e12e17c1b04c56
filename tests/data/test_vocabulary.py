import numpy as np
import pytest

from ccdgraph.data import Vocabulary


def test_ids_are_whole_numbers_or_text() -> None:
    assert Vocabulary([3, 1]).ids.dtype == np.int64
    assert Vocabulary(["007", "7"]).tolist() == ["007", "7"]
    assert Vocabulary([1, "a"]).tolist() == ["1", "a"]
    assert Vocabulary(np.array([2.0, 5.0])).tolist() == [2, 5]


def test_codes_find_numbers_by_their_text_only_in_plain_form() -> None:
    vocabulary = Vocabulary([10, 7])
    assert vocabulary.codes(["7", "007", "10", "x"]).tolist() == [1, -1, 0, -1]
    assert Vocabulary(["10", "a"]).codes([10, 11]).tolist() == [0, -1]


def test_extend_appends_unseen_in_order_of_appearance_and_keeps_old_codes() -> None:
    rng = np.random.default_rng(0)
    rows = [f"u{i}" for i in rng.integers(0, 50, 400)]
    expected: list[str] = []
    for row in rows:
        if row not in expected:
            expected.append(row)
    vocabulary = Vocabulary()
    for start in range(0, 400, 80):
        before = vocabulary.tolist()
        vocabulary = vocabulary.extend(rows[start : start + 80])
        assert vocabulary.tolist()[: len(before)] == before
    assert vocabulary.tolist() == expected


def test_extend_turns_numbers_into_text_when_text_arrives() -> None:
    grown = Vocabulary([5, 9]).extend(["9", "b", "b"])
    assert grown.tolist() == ["5", "9", "b"]
    assert grown.index(9) == 1


def test_unknown_id_is_refused_with_the_closest_one() -> None:
    with pytest.raises(ValueError, match="'marai' is not among the 2 known ids; did you mean 'mar"):
        Vocabulary(["maria", "bob"]).index("marai")


def test_external_ids_come_back_one_or_many() -> None:
    vocabulary = Vocabulary(["a", "b", "c"])
    assert vocabulary[1] == "b"
    assert vocabulary[-1] == "c"
    assert vocabulary[[2, 0]].tolist() == ["c", "a"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", None], "position 1 is missing"),
        ([1.5], "whole numbers or text"),
        (["a", "a"], "'a' occurs twice"),
        ([[1]], "2 dimensions"),
    ],
)
def test_unusable_ids_are_refused(ids: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary(ids)


def test_equality_is_by_ids_and_ids_are_read_only() -> None:
    vocabulary = Vocabulary([1, 2])
    assert vocabulary == Vocabulary(vocabulary.tolist())
    assert vocabulary != Vocabulary([2, 1])
    assert vocabulary != Vocabulary(["1", "2"])
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.ids[0] = 3
