import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccdgraph.checkpoint import CheckpointError
from ccdgraph.data import synthetic_stream
from ccdgraph.data.stream import Stream
from ccdgraph.data.vocabulary import Vocabulary
from ccdgraph.distill.labels import (
    LabelWriter,
    SoftLabels,
    identity,
    read_labels,
    read_manifest,
)
from ccdgraph.distill.labels.files import decode, encode

DATA = {"stream": "a", "users": "b"}
SIZES = {"num_users": 5, "num_items": 300}


def labels(version="v1", block=0, seed=0) -> SoftLabels:
    """Lists of users 0, 1 and 4; user 1 has a short one, users 2 and 3 none."""
    draw = torch.Generator().manual_seed(seed)
    lists = torch.tensor([[299, 3, 0], [7, -1, -1], [3, 7, 8]])
    scores = torch.randn(3, 3, generator=draw).sort(descending=True).values
    return SoftLabels.from_lists(
        torch.tensor([0, 1, 4]), lists, scores, version=version, block=block
    )


def written(folder, *parts, **options) -> str:
    with LabelWriter(folder, DATA) as writer:
        for part in parts or (labels(),):
            writer.write(part, **SIZES, **options)
    return str(folder)


def assert_same(one: SoftLabels, other: SoftLabels) -> None:
    for name in ("user", "item", "rank", "score"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)
    assert (one.version, one.block) == (other.version, other.block)


def test_what_is_written_comes_back_to_the_last_bit(tmp_path):
    stored = read_labels(written(tmp_path / "s"), "v1", 0, data=DATA)
    back, has = stored.for_users(torch.arange(5))
    assert_same(back, labels())
    assert has.tolist() == [True, True, False, False, True]
    assert (len(stored), stored.num_users, stored.num_items) == (7, 5, 300)
    assert (back.user.dtype, back.item.dtype, back.score.dtype) == (
        *(torch.int64, torch.int64),
        torch.float32,
    )


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


def test_a_store_without_labels_of_anyone_is_read(tmp_path):
    none = torch.empty(0, dtype=torch.int64)
    empty = SoftLabels(none, none, none, torch.empty(0), "v1")
    stored = read_labels(written(tmp_path / "s", empty), "v1", 0)
    back, has = stored.for_users(torch.tensor([0, 4]))
    assert (len(back), has.any().item(), stored.coverage()) == (0, False, 0)


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


def test_the_manifest_says_what_there_is(tmp_path):
    folder = written(tmp_path / "s", labels("b", 1), labels("a", 1), labels("b", 2))
    manifest = read_manifest(folder, DATA)
    assert manifest.versions == ("b", "a")
    assert [(p.version, p.block, p.rows, p.users) for p in manifest.parts] == [
        *(("b", 1, 7, 3), ("a", 1, 7, 3), ("b", 2, 7, 3))
    ]
    part = manifest.find("a", 1)
    assert part is not None
    assert part.coverage == pytest.approx(3 / 5)
    assert part.size == (tmp_path / "s" / "parts" / part.file).stat().st_size
    assert manifest.find("a", 2) is None


def test_labels_are_written_once(tmp_path):
    folder = written(tmp_path / "s")
    assert len(read_manifest(written(folder)).parts) == 1  # the same again
    with pytest.raises(ValueError, match="has other labels of 'v1' for block 0"):
        written(folder, labels(seed=1))
    assert_same(read_labels(folder, "v1", 0).for_users(torch.arange(5))[0], labels())


def test_retention_deletes_versions_and_leaves_open_labels_readable(tmp_path):
    folder = written(tmp_path / "s", labels("a"), labels("b"), labels("c"))
    held = read_labels(folder, "a", 0)
    size = read_manifest(folder).parts[0].size
    with LabelWriter(folder, DATA) as writer:
        with pytest.raises(ValueError, match=r"'versions' has \['d'\]"):
            writer.retain(["d"])
        assert writer.retain(writer.manifest.versions[-2:]) == size
    assert len(list((tmp_path / "s" / "parts").iterdir())) == 2
    assert_same(held.for_users(torch.arange(5))[0], labels("a"))
    with pytest.raises(ValueError, match="no labels of 'a' for block 0; it has b/0, c/0"):
        read_labels(folder, "a", 0)


def test_a_part_deleted_after_the_manifest_was_read_is_said_to_be_gone(tmp_path, monkeypatch):
    folder = written(tmp_path / "s", labels("a"), labels("b"))
    before, now = read_manifest(folder), read_manifest
    with LabelWriter(folder, DATA) as writer:
        writer.retain(["b"])
    seen = iter([before])
    monkeypatch.setattr(
        "ccdgraph.distill.labels.store.read_manifest", lambda *a: next(seen, None) or now(*a)
    )
    with pytest.raises(ValueError, match="no labels of 'a' for block 0; it has b/0"):
        read_labels(folder, "a", 0)


def test_every_flipped_byte_of_a_part_is_found_and_named(tmp_path):
    folder = written(tmp_path / "s")
    (path,) = (tmp_path / "s" / "parts").iterdir()
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=re.escape(f"'{path}' was altered")):
            read_labels(folder, "v1", 0)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{len(whole) - 1} bytes, labels.json says {len(whole)}"):
        read_labels(folder, "v1", 0)
    path.unlink()
    with pytest.raises(ValueError, match=re.escape(f"'{path}' is missing")):
        read_labels(folder, "v1", 0)


def test_a_damaged_manifest_is_refused(tmp_path):
    folder = written(tmp_path / "s")
    path = tmp_path / "s" / "labels.json"
    text = path.read_text()
    for wrong, message in (
        (text.replace('"block": 0', '"block": 1'), "was altered"),
        (text[:-20], "is damaged"),
        ("[]", "is damaged"),
        (json.dumps({**json.loads(text), "format": 2}), "format version 2, this release reads 1"),
        (json.dumps({**json.loads(text), "format": 0}), "format version 0, this release reads 1"),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            read_labels(folder, "v1", 0)
        with pytest.raises(ValueError, match=message):
            LabelWriter(folder, DATA)
    path.write_text(text)
    written(folder)  # a refused writer holds no lock
    with pytest.raises(ValueError, match=r"is not a label store: it has no labels\.json"):
        read_labels(tmp_path, "v1", 0)


def test_a_store_of_another_data_set_is_refused(tmp_path):
    stream = synthetic_stream(60, 40, 600, num_blocks=2)
    own = identity(stream)
    with LabelWriter(tmp_path, own) as writer:
        writer.write(labels(), **SIZES)
    read_labels(tmp_path, "v1", 0, data=own)
    renamed = Vocabulary([f"{name}-" for name in stream.users.ids])
    other = Stream(stream.blocks, renamed, stream.items, stream.protocol)
    shorter = Stream(stream.blocks[:1], stream.users, stream.items, stream.protocol)
    for different, name in ((other, "users"), (shorter, "stream")):
        with pytest.raises(ValueError, match=f"labels of another data set: '{name}' differ"):
            read_labels(tmp_path, "v1", 0, data=identity(different))
        with pytest.raises(ValueError, match="labels of another data set"):
            LabelWriter(tmp_path, identity(different))


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    folder = written(tmp_path / "s")

    def full(*_):
        raise OSError(28, "No space left on device")

    with LabelWriter(folder, DATA) as writer, monkeypatch.context() as patch:
        patch.setattr("ccdgraph.checkpoint.os.fsync", full)
        with pytest.raises(CheckpointError, match="the disk is full"):
            writer.write(labels("v2"), **SIZES)
        patch.undo()
        assert writer.manifest == read_manifest(folder)
        assert len(list((tmp_path / "s" / "parts").iterdir())) == 1
        writer.write(labels("v2"), **SIZES)
    assert read_manifest(folder).versions == ("v1", "v2")


def test_a_writer_refuses_bad_names_and_work_after_its_end(tmp_path):
    with LabelWriter(tmp_path, DATA) as writer:
        for version in ("", "a/b", "../a", "é"):
            with pytest.raises(ValueError, match="expected a name of letters"):
                writer.write(labels(version), **SIZES)
        with pytest.raises(ValueError, match="'block' -1"):
            writer.write(labels(block=-1), **SIZES)
    for call in (lambda: writer.write(labels(), **SIZES), lambda: writer.retain([])):
        with pytest.raises(ValueError, match="is closed"):
            call()
