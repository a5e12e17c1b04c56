"""Archives are fetched from a folder that stands for the publisher's server."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ccdgraph.data import DATASETS, read_dataset
from ccdgraph.run import DataConfig, open_stream

ROWS = "".join(f"{u}\t{i}\t3\t{881250949 + 60 * u + i}\n" for u in range(20) for i in range(9))


@pytest.fixture
def served(tmp_path: Path, monkeypatch) -> Path:
    """The archive on the server; the catalogue has its address and checksum."""
    archive = tmp_path / "server" / "ml-100k.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as whole:
        whole.writestr("ml-100k/u.data", ROWS)
    known = replace(
        DATASETS["movielens-100k"],
        archive=archive.as_uri(),
        md5=hashlib.md5(archive.read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(DATASETS, "movielens-100k", known)
    return archive


def test_an_archive_is_fetched_once(served: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    events = read_dataset("movielens-100k", tmp_path / "here", download=True)
    assert len(events) == 180
    copy = tmp_path / "here" / "ml-100k.zip"
    assert copy.read_bytes() == served.read_bytes()
    served.unlink()
    assert len(read_dataset("movielens-100k", copy, download=True)) == 180
    named = tmp_path / "new" / "mine.zip"
    with pytest.raises(OSError, match=r"cannot fetch 'file:.*; pass the path of a copy"):
        read_dataset("movielens-100k", named, download=True)


def test_a_run_may_ask_for_it(served: Path, tmp_path: Path) -> None:
    config = DataConfig(
        source="movielens-100k", path=str(tmp_path / "a.zip"), download=True, num_blocks=1
    )
    assert len(open_stream(config)) == 2
    with pytest.raises(ValueError, match="'download' has no effect on source 'events'"):
        DataConfig(source="events", path="x", download=True)


def test_a_damaged_archive_leaves_nothing_behind(served: Path, tmp_path: Path) -> None:
    """Mutation: a checksum that is not compared."""
    served.write_bytes(served.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"has MD5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
        read_dataset("movielens-100k", tmp_path / "a.zip", download=True)
    assert [path.name for path in tmp_path.iterdir()] == ["server"]


def test_what_may_not_be_fetched_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'gowalla' is not fetched: .*loc-Gowalla\.html"):
        read_dataset("gowalla", tmp_path / "x", download=True)
    fetched = {name for name, one in DATASETS.items() if one.archive}
    assert fetched == {f"movielens-{size}" for size in ("100k", "1m", "10m", "20m", "25m", "32m")}
    assert all(len(DATASETS[name].md5) == 32 for name in fetched)
