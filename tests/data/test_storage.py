import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ccdgraph.data import (
    Block,
    Interactions,
    Stream,
    Vocabulary,
    describe,
    fingerprint,
    read_stream,
    synthetic_stream,
    write_stream,
)


def toy(*, times: bool = True) -> Stream:
    train = Interactions(
        torch.tensor([0, 1, 0]),
        torch.tensor([0, 0, 1]),
        torch.tensor([0, 60, 86400]) if times else None,
        torch.tensor([1.0, 0.1, 2.5]),
    )
    held = train[torch.tensor([2])]
    none = train[torch.tensor([], dtype=torch.int64)]
    later = Interactions(torch.tensor([2]), torch.tensor([1]), train.time[:1] if times else None)
    empty = later[torch.tensor([], dtype=torch.int64)]
    blocks = (Block(0, train, none, held, 2, 2), Block(1, later, empty, empty, 4, 2))
    return Stream(blocks, Vocabulary(["a", "007", "c", "d"]), Vocabulary([5, 3]), name="toy")


def parts(stream: Stream) -> list[Interactions]:
    return [part for block in stream for part in (block.train, block.valid, block.test)]


def equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("times", [True, False])
def test_a_written_stream_reads_back_bitwise(tmp_path: Path, times: bool) -> None:
    stream = toy(times=times)
    again = read_stream(write_stream(stream, tmp_path / "deep" / "toy"))
    assert (again.name, again.protocol) == ("toy", "within")
    assert (again.users, again.items) == (stream.users, stream.items)
    assert [(b.index, b.num_users, b.num_items) for b in again] == [(0, 2, 2), (1, 4, 2)]
    for one, other in zip(parts(stream), parts(again), strict=True):
        for column in ("user", "item", "time", "rating"):
            assert equal(getattr(one, column), getattr(other, column))
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["toy"]


def test_writing_over_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    write_stream(toy(), tmp_path / "toy")
    with pytest.raises(ValueError, match="exists and is not empty"):
        write_stream(toy(), tmp_path / "toy")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(OSError, match="No space left"):
        write_stream(toy(), tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(partial: Path, folder: Path) -> None:
        assert len(list(partial.iterdir())) == 5 and not folder.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_stream(toy(), tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["block_1.parquet", "users.parquet", "stream.json"])
def test_missing_and_cut_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write_stream(toy(), tmp_path / "toy") / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name):
        read_stream(tmp_path / "toy")
    path.unlink()
    with pytest.raises(ValueError, match=name):
        read_stream(tmp_path / "toy")


def test_altered_counts_are_refused(tmp_path: Path) -> None:
    path = write_stream(toy(), tmp_path / "toy") / "stream.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "counts": [[2, 2], [5, 2]]}))
    with pytest.raises(ValueError, match="fingerprint"):
        read_stream(tmp_path / "toy")


def test_fingerprint_is_the_written_down_hash() -> None:
    digest = hashlib.sha256(b"within")
    for sizes, columns in (
        (b"2,2,3,0,1", [[0, 1, 0], [0, 0, 1], [], [], [0], [1]]),
        (b"4,2,1,0,0", [[2], [1], [], [], [], []]),
    ):
        digest.update(sizes)
        for ids in columns:
            digest.update(b"".join(i.to_bytes(8, "little") for i in ids))
    assert fingerprint(toy()) == digest.hexdigest() == fingerprint(toy(times=False))


def test_describe_counts_by_hand() -> None:
    base, later = describe(toy())
    assert (base.train, base.valid, base.test) == (3, 0, 1)
    assert (base.users, base.new_users, base.num_users) == (2, 2, 2)
    assert (base.start, base.end) == ("1970-01-01 00:00:00", "1970-01-02 00:00:00")
    assert (later.users, later.new_users, later.num_users) == (1, 2, 4)
    assert (later.items, later.new_items, later.num_items) == (1, 0, 2)
    assert describe(toy(times=False))[0].start is None


def test_describe_of_next_leaves_out_rows_of_the_next_block() -> None:
    stream = synthetic_stream(100, 50, 1_000, num_blocks=2, protocol="next")
    for block, summary in zip(stream, describe(stream), strict=True):
        assert summary.users == len(set(block.train.user.tolist()))
        assert summary.test == len(block.test)
    assert describe(stream)[0].test > 0


def test_importing_data_imports_no_table_library() -> None:
    code = "import sys, ccdgraph.data; print([m for m in sys.modules if m in sys.argv])"
    names = ["pandas", "pyarrow", "networkx"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
