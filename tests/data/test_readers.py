import datetime
import gzip
import io
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ccdgraph.data import Events, deduplicate, read_interactions

CSV = "userId,itemId,rating,timestamp\n7,007,3.5,30\n9,a,4,10\n7,a,1,20\n9,007,5,10\n"
ROWS = [("9", "a", 10, 4.0), ("9", "007", 10, 5.0), ("7", "a", 20, 1.0), ("7", "007", 30, 3.5)]


def rows(events: Events) -> list[tuple[str, str, int, float]]:
    columns = events.interactions
    assert columns.time is not None and columns.rating is not None
    return [
        (str(events.users[u]), str(events.items[i]), t, r)
        for u, i, t, r in zip(
            columns.user.tolist(),
            columns.item.tolist(),
            columns.time.tolist(),
            columns.rating.tolist(),
            strict=True,
        )
    ]


def frame() -> pd.DataFrame:
    return pd.read_csv(io.StringIO(CSV), dtype={"itemId": str})


def zipped(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/ratings.csv", text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", CSV.encode()),
        ("x.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("x.tsv", CSV.replace(",", "\t").encode()),
        ("x.csv.gz", gzip.compress(CSV.encode())),
        ("x.zip", zipped(CSV)),
        (
            "x.inter",
            CSV.replace(",", "\t")
            .replace("userId\titemId", "user_id:token\titem_id:token")
            .replace("rating\ttimestamp", "rating:float\ttimestamp:float")
            .encode(),
        ),
    ],
)
def test_text_files_read_alike(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    events = read_interactions(tmp_path / name)
    assert rows(events) == ROWS
    assert (events.users.tolist(), events.items.tolist()) == ([9, 7], ["a", "007"])
    assert (events.name, events.time_unit) == ("x", "s")


def test_frames_and_parquet_read_alike(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(frame())
    parquet.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "parts").mkdir()
    parquet.write_table(table.slice(0, 2), tmp_path / "parts" / "0.parquet")
    parquet.write_table(table.slice(2), tmp_path / "parts" / "1.parquet")
    categories = frame().astype({"itemId": "category"})
    sources = [frame(), table, categories, str(tmp_path / "x.parquet"), tmp_path / "parts"]
    assert [rows(read_interactions(source)) for source in sources] == [ROWS] * 5


def test_columns_can_be_named_and_headers_given(tmp_path: Path) -> None:
    path = tmp_path / "u.data"
    path.write_text("5\t1\t2\n6\t1\t3\n")
    events = read_interactions(path, header=["stars", "who", "what"], user="who", item="what")
    assert events.interactions.time is None
    assert events.date_range is None
    assert (events.users.tolist(), events.items.tolist()) == ([1], [2, 3])
    assert events.interactions.rating is not None
    assert events.interactions.rating.tolist() == [5, 6]


def test_file_order_holds_without_times() -> None:
    events = read_interactions({"user": [2, 1, 2], "item": [5, 4, 4]})
    assert events.interactions.user.tolist() == [0, 1, 0]
    assert events.interactions.item.tolist() == [0, 1, 1]


NOON = 1_714_564_800  # 2024-05-01T12:00:00Z


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([NOON, NOON + 1], "s"),
        ([NOON * 1000 + 999, (NOON + 1) * 1000], "ms"),
        ([NOON * 10**6 + 1, (NOON + 1) * 10**6], "us"),
        ([NOON * 10**9 + 999_999_999, (NOON + 1) * 10**9], "ns"),
        ([NOON + 0.75, NOON + 1.0], "s"),
        ([f"{NOON}", f"{NOON + 1}"], "s"),
        ([f"{NOON}.75", f"{NOON + 1}"], "s"),
        (["2024-05-01T12:00:00Z", "2024-05-01 12:00:01"], "date"),
        (["2024-05-01T14:00:00.123456789+02:00", "2024-05-01T07:00:01-0500"], "date"),
        (pd.to_datetime([NOON, NOON + 1], unit="s"), "date"),
        (pd.to_datetime([NOON, NOON + 1], unit="s", utc=True).tz_convert("Asia/Tokyo"), "date"),
        (pd.to_datetime([NOON, NOON + 1], unit="s").as_unit("ns"), "date"),
    ],
)
def test_times_become_utc_seconds(times: Any, unit: str) -> None:
    events = read_interactions(pd.DataFrame({"user": [1, 2], "item": [1, 1], "time": times}))
    assert events.interactions.time is not None
    assert events.interactions.time.tolist() == [NOON, NOON + 1]
    assert events.time_unit == unit
    assert events.date_range == ("2024-05-01 12:00:00", "2024-05-01 12:00:01")


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_every_kind_of_text_reads_alike(kind: pa.DataType) -> None:
    values = {"user": ["x", "y"], "item": ["1", "1"], "time": ["5", "4"], "rating": ["1.5", "2"]}
    columns = {name: pa.array(column).cast(kind) for name, column in values.items()}
    assert rows(read_interactions(columns)) == [("y", "1", 4, 2.0), ("x", "1", 5, 1.5)]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.string()])
def test_days_become_midnight_utc(kind: pa.DataType) -> None:
    days = pa.array([datetime.date(1969, 12, 31), datetime.date(1970, 1, 2)]).cast(kind)
    events = read_interactions({"user": [1, 2], "item": [1, 1], "date": days})
    assert events.interactions.time is not None
    assert events.interactions.time.tolist() == [-86400, 86400]


def test_times_within_a_second_order_the_rows_and_negative_times_round_down() -> None:
    events = read_interactions({"user": [1, 2, 3], "item": [1, 1, 1], "time": [0.9, 0.1, -0.5]})
    assert events.users.tolist() == [3, 2, 1]
    assert events.interactions.time is not None
    assert events.interactions.time.tolist() == [-1, 0, 0]


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        (10**11 - 1, "s"),
        (10**11, "ms"),
        (10**14 - 1, "ms"),
        (10**14, "us"),
        (10**16, "us"),
        (10**17, "ns"),
        (-(10**11), "ms"),
    ],
)
def test_the_unit_changes_at_powers_of_ten(time: int, unit: str) -> None:
    assert read_interactions({"user": [1], "item": [1], "time": [time]}).time_unit == unit


def test_a_given_unit_overrides_the_magnitude() -> None:
    data = {"user": [1, 2], "item": [1, 1], "time": [0, NOON * 1000]}
    events = read_interactions(data, time_unit="ms")
    assert events.interactions.time is not None
    assert events.interactions.time.tolist() == [0, NOON]


@pytest.mark.parametrize("policy", ["keep", "first", "last", "sum"])
def test_duplicates_follow_the_policy(policy: str) -> None:
    data = {
        "user": [1, 1, 2, 1, 2, 1],
        "item": [5, 6, 5, 5, 5, 5],
        "time": [1, 2, 3, 4, 5, 6],
        "rating": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
    everything = list(zip(*data.values(), strict=True))
    kept: dict[Any, Any] = {}
    for row in everything:
        pair = row[:2]
        if policy == "first":
            kept.setdefault(pair, row)
        elif policy == "last":
            kept[pair] = row
        else:
            old = kept.get(pair, (*pair, row[2], 0.0))
            kept[pair] = (*old[:3], old[3] + row[3])
    expected = everything if policy == "keep" else sorted(kept.values(), key=lambda row: row[2])
    found = rows(read_interactions(data, duplicates=policy))  # type: ignore[arg-type]
    assert [(int(u), int(i), t, r) for u, i, t, r in found] == expected


def test_sum_without_ratings_counts() -> None:
    events = read_interactions({"user": [1, 1, 1], "item": [5, 6, 5]})
    rating = deduplicate(events, "sum").interactions.rating
    assert rating is not None and rating.tolist() == [2, 1]


@pytest.mark.parametrize("k", [2, 3, 4])
def test_k_core_equals_a_naive_loop(k: int) -> None:
    draw = random.Random(k)
    pairs = [(draw.randrange(30), draw.randrange(25)) for _ in range(170)]
    pairs += pairs[:20]  # repeated rows do not count twice
    kept = pairs
    while True:
        users = Counter(u for u, _ in set(kept))
        items = Counter(i for _, i in set(kept))
        rest = [(u, i) for u, i in kept if users[u] >= k and items[i] >= k]
        if rest == kept:
            break
        kept = rest
    assert 0 < len(kept) < len(pairs)
    data = {"user": [u for u, _ in pairs], "item": [i for _, i in pairs]}
    core = read_interactions(data, k_core=k)
    found = zip(
        core.users[core.interactions.user].tolist(),
        core.items[core.interactions.item].tolist(),
        strict=True,
    )
    assert list(found) == kept
    assert len(core.users) == len({u for u, _ in kept})


def test_low_ratings_are_dropped_before_duplicates() -> None:
    data = {"user": [1, 1, 2], "item": [5, 5, 6], "rating": [1, 4, 2]}
    events = read_interactions(data, min_rating=3, duplicates="first")
    assert (events.users.tolist(), events.items.tolist()) == ([1], [5])
    assert events.interactions.rating is not None
    assert events.interactions.rating.tolist() == [4]


NAN = float("nan")
BAD = [
    ({"usr_id": [1], "item": [2]}, {}, "no column known as the user.* did you mean user='usr_id'"),
    ({"user": [1], "xyz": [2]}, {}, "no column known as the item.*name it with item="),
    ({"user": [1], "item": [2]}, {"time": "itme"}, "no column 'itme'.* did you mean 'item'"),
    ({"user": [1, None], "item": [2, 2]}, {}, "user in the dict, row 2: the value is missing"),
    ({"user": [1.0, NAN], "item": [2, 2]}, {}, "user in the dict, row 2: the value is missing"),
    ({"user": [1, 1], "item": ["a", None]}, {}, "item in the dict, row 2: the value is missing"),
    ({"user": [1, 1], "item": [1, 1.5]}, {}, "item in the dict, row 2: the value is 1.5"),
    ({"user": [1, 1], "item": [1, -4]}, {}, "item in the dict, row 2: .* -4; .* not negative"),
    ({"user": [1, 1], "item": ["1", "-4"]}, {}, "item in the dict, row 2: .* not negative"),
    ({"user": [1.0, 1e19], "item": [1, 1]}, {}, "user in the dict, row 2: .* read the ids as text"),
    ({"user": [1.0, float("inf")], "item": [1, 1]}, {}, "user in the dict, row 2: .* inf"),
    ({"user": [2**70, 1], "item": [1, 1]}, {}, "the dict has a number that overflows 64 bits"),
    ({"user": [1], "item": [1], "time": ["noon"]}, {}, "row 1: the value is 'noon'; it is neither"),
    ({"user": [1], "item": [1], "time": ["2024-02-30"]}, {}, "row 1: the value is '2024-02-30'"),
    ({"user": [1] * 2, "item": [1] * 2, "time": ["5", "2024-02-03"]}, {}, "row 2: .* use one form"),
    ({"user": [1] * 2, "item": [1] * 2, "time": [NOON, NOON * 1000]}, {}, "row 2: .* 'time_unit'"),
    ({"user": [1], "item": [1], "time": [1e300]}, {}, "row 1: .* out of range"),
    ({"user": [1], "item": [1], "time": [None]}, {}, "time in the dict, row 1: .* missing"),
    ({"user": [1], "item": [1], "time": [True]}, {}, "has type bool"),
    ({"user": [1], "item": [1], "time": [1]}, {"time_unit": "min"}, "'time_unit' is 'min'"),
    ({"user": [1], "item": [1], "rating": ["good"]}, {}, "rating in the dict, row 1: .* number"),
    ({"user": [1], "item": [1], "rating": [float("inf")]}, {}, "row 1: .* finite"),
    ({"user": [], "item": []}, {}, "has no rows"),
    ({"user": [1], "item": [1]}, {"min_rating": 1.0}, "no ratings"),
    ({"user": [1], "item": [1], "rating": [1]}, {"min_rating": 2.0}, "leave no rows"),
    ({"user": [1], "item": [1]}, {"k_core": 5}, "the 5-core of 'events' leave no rows"),
    ({"user": [1], "item": [1]}, {"k_core": -1}, "'k_core' is -1"),
    ({"user": [1], "item": [1]}, {"duplicates": "drop"}, "'duplicates' is 'drop'"),
]


@pytest.mark.parametrize(("data", "options", "message"), BAD)
def test_bad_values_are_refused(
    data: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_interactions(data, **options)
    assert "\n" not in str(caught.value)


def test_mixed_column_types_are_refused() -> None:
    with pytest.raises(ValueError, match="mixed types"):
        read_interactions(pd.DataFrame({"user": ["a", 1], "item": [1, 2]}, dtype=object))


def test_a_source_without_columns_is_refused() -> None:
    with pytest.raises(TypeError, match="pass a path or a frame"):
        read_interactions(3)


def parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame()), buffer)
    return buffer.getvalue()


LONG = CSV + "1,2,3,40\n" * 5000
BROKEN = [
    ("x.csv", b"", "is empty"),
    ("x.csv", b"user,item\n", "has no rows"),
    ("x.csv.gz", b"", "is empty"),
    ("x.csv", CSV.encode() + b"7,b", "row 5: 2 fields, not 4"),
    ("x.csv", CSV.encode() + b"7,b,1,", "time in .*row 5: the value is missing"),
    ("x.csv", CSV.encode() + b"nan,b,1,40\n", "user in .*x.csv', row 5: the value is missing"),
    ("x.csv", CSV.encode() + b"1,b,1,4O\n", "row 5: the value is '4O'; it is neither"),
    ("x.csv", CSV.encode() + b"1,\xff,1,40\n", "not readable as text"),
    ("x.csv.gz", gzip.compress(LONG.encode())[:-40], "cut short or damaged"),
    ("x.csv.gz", CSV.encode(), "cut short or damaged"),
    ("x.zip", zipped(LONG)[:-40], "cut short or damaged"),
    ("x.parquet", parquet_bytes()[:-40], "cut short"),
    ("x.parquet", b"", "cut short"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_broken_files_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_interactions(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_zip_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
        archive.writestr("b.csv", CSV)
    with pytest.raises(ValueError, match="holds 2 files"):
        read_interactions(tmp_path / "x.zip")


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    for name in ("x.csv", "x.parquet", "x.zip"):
        with pytest.raises(FileNotFoundError):
            read_interactions(tmp_path / name)
