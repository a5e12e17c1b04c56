import gzip
import json
import os
from pathlib import Path

import pytest

from ccdgraph.data import read_presplit

BASE = "user,item,split\n0,0,train\n1,2,train\n0,2,test\n1,1,valid\n0,0,train\n"
NEXT = "user,item,split\n3,4,train\n0,1,test\n"


def write(folder: Path, base: str = BASE, following: str = NEXT) -> Path:
    (folder / "block_0.csv.gz").write_bytes(gzip.compress(base.encode()))
    (folder / "block_1.csv").write_text(following)
    return folder


def test_ids_rows_and_counts_are_kept(tmp_path: Path) -> None:
    stream = read_presplit(write(tmp_path), name="toy")
    base, following = stream
    assert (base.train.user.tolist(), base.train.item.tolist()) == ([0, 1, 0], [0, 2, 0])
    assert (base.valid.user.tolist(), base.valid.item.tolist()) == ([1], [1])
    assert (base.test.user.tolist(), base.test.item.tolist()) == ([0], [2])
    assert (base.num_users, base.num_items) == (2, 3)
    assert (following.num_users, following.num_items) == (4, 5)
    assert following.train.time is None
    assert stream.users.tolist() == [0, 1, 2, 3]
    assert (stream.name, stream.protocol) == ("toy", "within")


def test_counts_of_meta_hold_entities_without_rows(tmp_path: Path) -> None:
    counts = [{"train": 3, "num_users_so_far": 3, "num_items_so_far": 3}, {"num_users_so_far": 6}]
    write(tmp_path).joinpath("meta.json").write_text(json.dumps({"blocks": counts}))
    stream = read_presplit(tmp_path)
    assert [(block.num_users, block.num_items) for block in stream] == [(3, 3), (6, 5)]
    assert (len(stream.users), len(stream.items)) == (6, 5)


@pytest.mark.parametrize(
    ("following", "message"),
    [
        (NEXT.replace("3,", "-3,"), r"user in '.*block_1.csv', row 1: the value is '-3'"),
        (NEXT.replace("3,", "9" * 25 + ","), "row 1: .* overflows 64 bits"),
        (NEXT.replace("3,", "4294967296,"), "row 1: the value is '4294967296'.* here 0 to 1069"),
        (NEXT.replace(",1,", ",1.5,"), r"item in .*, row 2: the value is '1.5'"),
        (NEXT.replace(",1,", ",,"), "item in .*, row 2: the value is missing"),
        (NEXT.replace("test", "tset"), "split in .*, row 2: the value is 'tset'"),
        (NEXT.replace("train", "test"), "has no training rows"),
        (NEXT.replace("split", "spilt"), "no column 'split', .* did you mean 'spilt'"),
        (NEXT + "1,2", "row 3: 2 fields, not 3"),
        ("user,item,split\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_bad_blocks_are_refused(tmp_path: Path, following: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_presplit(write(tmp_path, following=following))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ('{"blocks": [{"train": 4}, {}]}', "has 3 train rows, meta.json says 4"),
        ('{"blocks": [{"num_users_so_far": 1}, {}]}', "needs 2 users and 3 items"),
        ('{"blocks": [{}]}', "lists 1 blocks, the folder holds 2"),
        ('{"blocks": [{}', "no readable 'blocks'"),
    ],
)
def test_a_meta_file_that_disagrees_is_refused(tmp_path: Path, meta: str, message: str) -> None:
    write(tmp_path).joinpath("meta.json").write_text(meta)
    with pytest.raises(ValueError, match=message):
        read_presplit(tmp_path)


def test_missing_and_double_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no block_0\.csv"):
        read_presplit(tmp_path)
    write(tmp_path).joinpath("block_3.csv").write_text(NEXT)
    with pytest.raises(ValueError, match=r"no block_2\.csv"):
        read_presplit(tmp_path)
    (tmp_path / "block_1.csv.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="block 1 is there twice"):
        read_presplit(tmp_path)


@pytest.mark.skipif("CCDGRAPH_DATA" not in os.environ, reason="CCDGRAPH_DATA names no data folder")
def test_the_published_split_has_the_counts_it_lists() -> None:
    folder = Path(os.environ["CCDGRAPH_DATA"])
    folder = folder / "yelp_ccd" if (folder / "yelp_ccd").is_dir() else folder
    stream = read_presplit(folder)
    listed = json.loads((folder / "meta.json").read_text())["blocks"]
    assert [len(block.train) for block in stream] == [entry["train"] for entry in listed]
    assert [len(block.test) for block in stream] == [entry["test"] for entry in listed]
    assert [block.num_users for block in stream] == [entry["num_users_so_far"] for entry in listed]
    assert len(stream.users) == 14_950 and len(stream.items) == 12_261
    rows = sum(len(part) for b in stream for part in (b.train, b.valid, b.test))
    assert rows == 315_814
    repeats = 0
    for block in stream:
        key = [part.user * 20_000 + part.item for part in (block.train, block.valid, block.test)]
        flat = [k for part in key for k in part.tolist()]
        repeats += len(flat) - len(set(flat))
    assert repeats == 5_929
