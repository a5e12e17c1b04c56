import json
import re

import pytest
import torch
from small_labels import DATA, SIZES, assert_same, labels, written

from ccdgraph.checkpoint import CheckpointError
from ccdgraph.data import synthetic_stream
from ccdgraph.data.stream import Stream
from ccdgraph.data.vocabulary import Vocabulary
from ccdgraph.distill.labels import LabelWriter, SoftLabels, identity, read_labels, read_manifest


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


def test_a_store_without_labels_of_anyone_is_read(tmp_path):
    none = torch.empty(0, dtype=torch.int64)
    empty = SoftLabels(none, none, none, torch.empty(0), "v1")
    stored = read_labels(written(tmp_path / "s", empty), "v1", 0)
    back, has = stored.for_users(torch.tensor([0, 4]))
    assert (len(back), has.any().item(), stored.coverage()) == (0, False, 0)


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


def test_the_cost_of_labels_is_kept_beside_them(tmp_path):
    """Labels that are found written already keep the cost of the first time."""
    for seconds in (3.5, 4.5):
        with LabelWriter(tmp_path, DATA) as writer:
            part = writer.write(labels(), **SIZES, cost={"seconds": seconds})
            assert part.cost == {"seconds": 3.5}
    assert read_manifest(tmp_path).parts[0].cost == {"seconds": 3.5}


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


def test_a_writer_takes_no_folder_of_other_files_and_orphans_no_part(tmp_path):
    """Starting a new list beside old parts would delete them."""
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"has no labels\.json but holds 'a\.txt'"):
        LabelWriter(tmp_path, DATA)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    folder = written(tmp_path / "s")
    (tmp_path / "s" / "labels.json").rename(tmp_path / "kept")
    with pytest.raises(ValueError, match=r"has no labels\.json but holds 'v1-0-"):
        LabelWriter(folder, DATA)
    (tmp_path / "kept").rename(tmp_path / "s" / "labels.json")
    assert len(read_labels(folder, "v1", 0)) == 7
    (tmp_path / "new" / "parts").mkdir(parents=True)  # what is left of a killed first writer
    (tmp_path / "new" / "writer.lock").touch()
    written(tmp_path / "new")
