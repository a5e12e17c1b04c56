import gzip
import io
import random
import tarfile
import typing
import zipfile
from pathlib import Path

import pytest
from published import CASES, GOWALLA, RATINGS_CSV, Row

from ccdgraph.data import (
    DATASETS,
    DatasetName,
    Events,
    read_dataset,
    read_interactions,
    split_stream,
)
from ccdgraph.data.datasets import batches
from ccdgraph.data.events import iso

each_case = pytest.mark.parametrize(("name", "file", "text", "expected"), CASES)


def rows(events: Events) -> list[Row]:
    columns = events.interactions
    times = columns.time.tolist() if columns.time is not None else [None] * len(columns)
    ratings = columns.rating.tolist() if columns.rating is not None else [None] * len(columns)
    pairs = zip(columns.user.tolist(), columns.item.tolist(), times, ratings, strict=True)
    return [
        (str(events.users[u]), str(events.items[i]), None if t is None else iso(t), r)
        for u, i, t, r in pairs
    ]


def test_every_data_set_has_a_name_and_a_case() -> None:
    assert set(typing.get_args(DatasetName)) == set(DATASETS) == {case[0] for case in CASES}


@each_case
def test_rows_come_in_time_order_from_a_file_a_folder_and_archives(
    tmp_path: Path, name: DatasetName, file: str, text: str, expected: list[Row]
) -> None:
    content = text.encode("latin-1" if "TSMC" in file else "utf-8")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "README.txt").write_text("no data")
    (tmp_path / "in" / "deep" / file).write_bytes(content)
    (tmp_path / f"{file}.gz").write_bytes(gzip.compress(content))
    if name == "lightgcn":  # a folder holds both parts
        (tmp_path / "in" / "deep" / file).write_text("0 5 3\n1\n")
        (tmp_path / "in" / "deep" / "test.txt").write_text("2 5\n")
    (tmp_path / file).write_bytes(content)
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w") as archive,
        tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar,
    ):
        for path in sorted((tmp_path / "in").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
            archive.writestr(f"__MACOSX/._{path.name}", "x")
            tar.add(path, path.relative_to(tmp_path))
    for source in (file, f"{file}.gz", "in", "x.zip", "x.tar.gz"):
        events = read_dataset(name, tmp_path / source)
        assert (source, rows(events)) == (source, expected)
        assert events.name == name
        assert set(events.users.tolist()) == {type(events.users[0])(row[0]) for row in expected}


@each_case
def test_batches_of_any_size_read_alike(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: DatasetName,
    file: str,
    text: str,
    expected: list[Row],
) -> None:
    (tmp_path / file).write_bytes(text.encode("latin-1" if "TSMC" in file else "utf-8"))
    monkeypatch.setattr(batches, "BLOCK", max(len(line) for line in text.splitlines()) + 30)
    monkeypatch.setattr(batches, "LINES", 1)
    assert rows(read_dataset(name, tmp_path / file)) == expected


@pytest.mark.parametrize(("name", "file"), [("yelp", "review.json"), ("gowalla", "x.txt")])
def test_a_long_file_comes_in_batches_of_the_columns_that_are_read(
    monkeypatch: pytest.MonkeyPatch, name: DatasetName, file: str
) -> None:
    monkeypatch.setattr(batches, "BLOCK", 1000)
    text = next(case[2] for case in CASES if case[0] == name) * 100
    layout = DATASETS[name].layouts[0]
    read = list(batches.read_batches(io.BytesIO(text.encode()), layout, file))
    assert len(read) > 10 and sum(batch.num_rows for batch in read) == text.count("\n")
    assert all(batch.schema.names == list(layout.roles) for batch in read)


def test_a_lightgcn_folder_reads_train_then_test(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 5 3\n1\n")
    (tmp_path / "test.txt").write_text("1 3\n0 9\n")
    events = read_dataset("lightgcn", tmp_path)
    assert [row[:2] for row in rows(events)] == [("0", "5"), ("0", "3"), ("1", "3"), ("0", "9")]
    assert events.time_unit is None and events.date_range is None


def test_kinds_of_events_are_chosen(tmp_path: Path) -> None:
    header = "timestamp,visitorid,event,itemid,transactionid\n"
    text = "".join(
        f"{1433221332117 + k},{k},{event},7,\n"
        for k, event in enumerate(DATASETS["retailrocket"].events)
    )
    (tmp_path / "events.csv").write_text(header + text)
    chosen = read_dataset("retailrocket", tmp_path, events=["transaction", "addtocart"])
    assert chosen.users.tolist() == [1, 2]
    assert len(read_dataset("retailrocket", tmp_path)) == 3


def test_filters_apply_as_in_read_interactions(tmp_path: Path) -> None:
    (tmp_path / "checkins_totalCheckins.txt").write_text(GOWALLA)
    events = read_dataset("gowalla", tmp_path, duplicates="first")
    assert [row[1:3] for row in rows(events)] == [
        ("22847", "2010-10-17 23:42:03"),
        ("420315", "2010-10-18 22:17:43"),
    ]
    (tmp_path / "ratings.csv").write_text(RATINGS_CSV)
    rated = read_dataset("movielens-20m", tmp_path / "ratings.csv", min_rating=3.5)
    assert [row[3] for row in rows(rated)] == [3.5, 4.5]
    assert len(read_dataset("movielens-20m", tmp_path / "ratings.csv", k_core=1)) == 3


def test_times_within_a_second_order_the_rows(tmp_path: Path) -> None:
    case = next(case for case in CASES if case[0] == "retailrocket")
    (tmp_path / "events.csv").write_text(case[2])
    events = read_dataset("retailrocket", tmp_path)
    assert events.users.tolist() == [57, 257597] and events.time_unit == "ms"


def test_a_random_table_equals_what_read_interactions_gives(tmp_path: Path) -> None:
    draw = random.Random(0)
    text = "userId,movieId,rating,timestamp\n" + "".join(
        f"{draw.randrange(90)},{draw.randrange(70)},{draw.randrange(1, 11) / 2},"
        f"{946684800 + draw.randrange(60)}\n"
        for _ in range(500)
    )
    (tmp_path / "ratings.csv").write_text(text)
    found = read_dataset("movielens-25m", tmp_path, duplicates="last", min_rating=2, k_core=3)
    same = read_interactions(
        tmp_path / "ratings.csv", duplicates="last", min_rating=2, k_core=3, time_unit="s"
    )
    assert rows(found) == rows(same) and (found.users, found.items) == (same.users, same.items)


def test_a_data_set_splits_into_a_stream(tmp_path: Path) -> None:
    text = io.StringIO()
    for k in range(200):
        text.write(f"{1 + k % 20}\t{1 + k % 13}\t{1 + k % 5}\t{881250949 + 997 * (k * 7 % 200)}\n")
    (tmp_path / "u.data").write_text(text.getvalue())
    events = read_dataset("movielens-100k", tmp_path)
    assert sorted(events.users.tolist()) == list(range(1, 21))  # 1-based outside, 0-based inside
    stream = split_stream(events, num_blocks=4)
    assert len(stream) == 5 and stream[4].num_users == 20 and stream.name == "movielens-100k"
