import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_labels import SIZES, labels

from ccdgraph.distill.labels import SoftLabels
from ccdgraph.distill.labels.files import decode, encode


def test_users_come_in_the_order_asked_for_with_repeats_and_strangers():
    """User 9 is above all that the teacher knew."""
    whole = labels()
    stored = decode(encode(whole, **SIZES)[0])
    user = torch.tensor([4, 9, 1, 4, 2])
    part, has = stored.for_users(user)
    expected = [(u, i, r) for u in (4, 1, 4) for i, r in zip(*of(whole, u), strict=True)]
    found = zip(part.user.tolist(), part.item.tolist(), part.rank.tolist(), strict=True)
    assert list(found) == expected
    assert has.tolist() == [True, False, True, True, False]
    assert torch.equal(stored.has(user), has)
    assert stored.coverage(user) == pytest.approx(3 / 5)
    assert stored.coverage() == pytest.approx(3 / 5)
    assert stored.coverage(torch.empty(0, dtype=torch.int64)) == 0


def of(whole: SoftLabels, user: int) -> tuple[list[int], list[int]]:
    mine = whole.user == user
    return whole.item[mine].tolist(), whole.rank[mine].tolist()


def test_lists_are_those_that_the_labels_were_made_of():
    stored = decode(encode(labels(), **SIZES)[0])
    score, item = stored.lists(torch.tensor([1, 4, 3]))
    assert item.tolist() == [[7, -1, -1], [3, 7, 8], [-1, -1, -1]]
    assert torch.equal(score.isinf(), item < 0)
    assert score[1].tolist() == labels().score[4:].tolist()
    assert stored.lists(torch.tensor([4]), 2)[1].tolist() == [[3, 7]]
    assert stored.lists(torch.tensor([3]), 2)[1].tolist() == [[-1, -1]]
    assert stored.lists(torch.tensor([], dtype=torch.int64))[1].shape == (0, 0)


pairs = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 70_000)),
    st.floats(-1e4, 1e4, width=32),
    max_size=40,
)


@given(pairs, st.booleans(), st.randoms(use_true_random=False))
def test_any_labels_in_any_order_equal_a_loop(table, sampled, random):
    """Ranks with gaps, as of sampled labels, are kept in a column of their own."""
    rows, rank = [], {}
    for (user, item), score in table.items():
        place = rank.get(user, 0) + (random.randrange(500) if sampled else 0)
        rank[user] = place + 1
        rows.append((user, item, place, score))
    random.shuffle(rows)
    columns = list(zip(*rows, strict=True)) or [()] * 4
    user, item, place = (torch.tensor(column, dtype=torch.int64) for column in columns[:3])
    score = torch.tensor(columns[3], dtype=torch.float32)
    given_labels = SoftLabels(user, item, place, score, "v", 3)
    stored = decode(encode(given_labels, num_users=8, num_items=70_001)[0])
    asked = [7, 0, 3, 3, 11]
    back, _ = stored.for_users(torch.tensor(asked))
    expected = [
        row for u in asked for row in sorted((r for r in rows if r[0] == u), key=lambda row: row[2])
    ]
    found = zip(
        *(getattr(back, n).tolist() for n in ("user", "item", "rank", "score")), strict=True
    )
    assert list(found) == expected


def test_half_scores_keep_the_order_and_three_digits():
    whole = labels()
    data, _ = encode(whole, **SIZES, half=True)
    back = decode(data).for_users(torch.arange(5))[0]
    assert torch.equal(back.item, whole.item)
    torch.testing.assert_close(back.score, whole.score, rtol=1e-3, atol=1e-7)
    huge = SoftLabels(whole.user, whole.item, whole.rank, whole.score + 7e4, "v1")
    with pytest.raises(ValueError, match="'score' holds values above 65504"):
        encode(huge, **SIZES, half=True)


def test_a_row_takes_six_bytes_below_65536_items():
    """Ids as int32, or a rank or user column, would take 8 or more."""
    lists = torch.arange(100).repeat(1000, 1)
    whole = SoftLabels.from_lists(torch.arange(1000), lists, torch.rand(1000, 100), version="v")
    data, users = encode(whole, num_users=1000, num_items=65_536)
    assert users == 1000
    assert data.size < 6.3 * len(whole)
    assert decode(data).item.dtype == np.uint16
    assert decode(encode(whole, num_users=1000, num_items=65_537)[0]).item.dtype == np.uint32


def test_unsound_labels_are_refused():
    def change(**columns) -> SoftLabels:
        whole = labels()
        held = {n: getattr(whole, n).clone() for n in ("user", "item", "rank", "score")}
        for name, value in columns.items():
            held[name][1] = value
        return SoftLabels(**held, version="v1")

    for columns, message in (
        ({"user": 5}, "'user' holds 0 to 5, expected 0 to 4"),
        ({"item": 300}, "'item' holds 0 to 300, expected 0 to 299"),
        ({"item": -1}, "'item' holds -1 to 299"),
        ({"rank": 0}, "the same 'rank' twice"),
        ({"item": 299}, "the same 'item' twice"),
        ({"score": float("nan")}, "'score' holds NaN"),
        ({"score": float("inf")}, "'score' holds NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            encode(change(**columns), **SIZES)
    with pytest.raises(ValueError, match=r"'lists' has shape \(2, 3\)"):
        SoftLabels.from_lists(torch.arange(2), torch.zeros(2, 3), torch.zeros(2, 2), version="v")
    with pytest.raises(ValueError, match="'user' holds id -1"):
        decode(encode(labels(), **SIZES)[0]).for_users(torch.tensor([-1]))
