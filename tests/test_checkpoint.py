"""Checkpoints: whole or not at all, and every way a file can be wrong."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest
import torch

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError

TENSORS = {
    "user": torch.arange(6.0).view(2, 3).T,  # not contiguous
    "ids": torch.tensor([3, 1]),
    "empty": torch.empty(0, 4),
    "half": torch.ones(2, dtype=torch.bfloat16),
}
META = {"class_path": "ccdgraph.nn.mf:MF", "sizes": {"num_users": 2, "dim": 3}, "block": 1}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "block-1"
    checkpoint.save(folder, TENSORS, META)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_equal_tensors(got: dict[str, torch.Tensor]) -> None:
    assert got.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


def test_what_is_saved_is_loaded(saved):
    tensors, meta = checkpoint.load(saved)
    assert_equal_tensors(tensors)
    assert meta == META
    assert files(saved.parent) == {"block-1", "block-1/meta.json", "block-1/tensors.safetensors"}


def test_tensors_that_share_memory_and_parameters_are_saved(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    checkpoint.save(tmp_path / "c", {"a": weight, "b": weight}, {})
    tensors, _ = checkpoint.load(tmp_path / "c")
    assert torch.equal(tensors["a"], torch.ones(2)) and torch.equal(tensors["b"], torch.ones(2))


def test_saving_again_replaces(saved):
    checkpoint.save(saved, {"x": torch.ones(1)}, {"block": 2})
    tensors, meta = checkpoint.load(saved)
    assert set(tensors) == {"x"} and meta == {"block": 2}
    assert files(saved.parent) == {"block-1", "block-1/meta.json", "block-1/tensors.safetensors"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("call", range(6))
def test_a_process_killed_while_replacing_leaves_a_whole_checkpoint(saved, monkeypatch, call):
    """Fails when the old checkpoint is deleted before the new one is in place."""
    calls = 0

    def kill(real):
        def step(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > call:
                os._exit(9)
            return real(*args, **kwargs)

        return step

    child = os.fork()
    if child == 0:
        for name in ("fsync", "rename"):
            monkeypatch.setattr(os, name, kill(getattr(os, name)))
        checkpoint.save(saved, TENSORS, {"block": 2})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert checkpoint.exists(saved)
    tensors, meta = checkpoint.load(saved)
    assert_equal_tensors(tensors)
    assert meta in (META, {"block": 2})
    checkpoint.save(saved, TENSORS, {"block": 3})
    assert checkpoint.load(saved)[1] == {"block": 3}
    assert files(saved.parent) == {"block-1", "block-1/meta.json", "block-1/tensors.safetensors"}


def test_nothing_there_does_not_exist(tmp_path):
    assert not checkpoint.exists(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"none/meta\.json' is missing"):
        checkpoint.load(tmp_path / "none")


@pytest.mark.parametrize("name", ["meta.json", "tensors.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}' is missing"):
        checkpoint.load(saved)


def test_cut_and_altered_tensors_are_refused(saved):
    path = saved / "tensors.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=rf"has {len(data) // 2} bytes, .* says {len(data)}"):
        checkpoint.load(saved)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors' was altered"):
        checkpoint.load(saved)


@pytest.mark.parametrize("text", ["", '{"format": 1, "tens', "\xff"])
def test_meta_that_is_not_json_is_refused(saved, text):
    (saved / "meta.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"meta\.json' is not valid JSON"):
        checkpoint.load(saved)


@pytest.mark.parametrize("record", [[], {}, {"format": 0}, {"format": 2}])
def test_another_format_version_is_refused(saved, record):
    (saved / "meta.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"has format version .*, this release reads 1"):
        checkpoint.load(saved)


def test_altered_meta_is_refused(saved):
    """Fails when only the tensors have a digest: this text is valid JSON in every other way."""
    record = json.loads((saved / "meta.json").read_text())
    record["meta"]["sizes"]["dim"] += 1
    (saved / "meta.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"meta\.json' was altered"):
        checkpoint.load(saved)


def test_meta_without_its_fields_is_refused(saved):
    (saved / "meta.json").write_text(json.dumps({"format": 1, "tensors": {"size": 3}}))
    with pytest.raises(CheckpointError, match="lacks the size and SHA-256"):
        checkpoint.load(saved)


def test_tensors_of_another_format_are_refused(saved):
    data = b"not safetensors"
    (saved / "tensors.safetensors").write_bytes(data)
    record = json.loads((saved / "meta.json").read_text())
    record["tensors"] = {"size": len(data), "sha256": checkpoint.hashlib.sha256(data).hexdigest()}
    (saved / "meta.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        checkpoint.load(saved)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_checkpoint(saved, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(CheckpointError, match=r"cannot write '.*block-1': the disk is full"):
            checkpoint.save(saved, TENSORS, {"block": 2})
        with pytest.raises(CheckpointError, match="the disk is full"):
            checkpoint.save(saved.parent / "new", TENSORS, {})
        with pytest.raises(CheckpointError, match=r"run\.json': the disk is full"):
            checkpoint.atomic_write_text(saved.parent / "run.json", "{}")
    assert checkpoint.load(saved)[1] == META
    assert files(saved.parent) == {"block-1", "block-1/meta.json", "block-1/tensors.safetensors"}


def test_an_interrupt_leaves_the_old_checkpoint(saved, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(saved, TENSORS, {"block": 2})
    assert checkpoint.load(saved)[1] == META
    assert files(saved.parent) == {"block-1", "block-1/meta.json", "block-1/tensors.safetensors"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"cannot write '.*file/c': (Not a dir|File exists)"):
        checkpoint.save(tmp_path / "file" / "c", TENSORS, {})


def test_check_says_what_differs():
    checkpoint.check(META, class_path="ccdgraph.nn.mf:MF", sizes={"num_users": 2, "dim": 3})
    with pytest.raises(CheckpointError) as refused:
        checkpoint.check(META, class_path="my_gat:GAT", sizes={"num_users": 2, "dim": 8, "x": 1})
    assert str(refused.value) == (
        "the checkpoint holds class 'ccdgraph.nn.mf:MF' where 'my_gat:GAT' is expected, "
        "dim 3 where 8 is expected, x None where 1 is expected"
    )


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "deep" / "run.json"
    checkpoint.atomic_write_text(path, "ä")
    checkpoint.atomic_write_bytes(path, b"b")
    assert path.read_bytes() == b"b"
    assert files(tmp_path) == {"deep", "deep/run.json"}


def test_a_writer_keeps_the_values_of_the_moment(tmp_path, monkeypatch):
    """Fails if tensors or meta are read after the work has gone on."""
    real, may = checkpoint.save, threading.Event()

    def late(*given):
        assert may.wait(60)
        real(*given)

    monkeypatch.setattr(checkpoint, "save", late)
    tensor, meta = torch.zeros(3), {"seconds": {"0/student": 1.0}}
    with checkpoint.Writer() as writer:
        writer.save(tmp_path / "run", {"user": tensor}, meta)  # returns although nothing is written
        tensor += 1
        meta["seconds"]["0/teacher"] = 2.0
        assert not checkpoint.exists(tmp_path / "run")
        may.set()
    tensors, said = checkpoint.load(tmp_path / "run")
    assert tensors["user"].tolist() == [0, 0, 0]
    assert said == {"seconds": {"0/student": 1.0}}


def test_a_writer_saves_in_order(tmp_path):
    with checkpoint.Writer() as writer:
        for step in range(5):
            writer.save(tmp_path / "run", {"user": torch.full((2,), step)}, {"step": step})
            writer.save(tmp_path / "other", {}, {"step": step})
            # Whoever saves a second time knows that the first is on the disk.
            assert checkpoint.load(tmp_path / "run")[1] == {"step": step}
    assert checkpoint.load(tmp_path / "other")[1] == {"step": 4}


def test_who_waits_is_told_what_a_writer_could_not_write(tmp_path):
    (tmp_path / "file").write_text("in the way")
    writer = checkpoint.Writer()
    writer.save(tmp_path / "file" / "run", TENSORS, META)
    with pytest.raises(CheckpointError, match="cannot write"):
        writer.wait()
    writer.wait()  # once
    with pytest.raises(CheckpointError, match="cannot write"), writer:
        writer.save(tmp_path / "file" / "run", TENSORS, META)
