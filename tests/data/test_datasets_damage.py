"""Damaged data sets are refused in one sentence that names the file and the row."""

import gzip
import tarfile
import zipfile
from pathlib import Path

import pytest
from published import AMAZON_JSON, CASES, REVIEWS, lines

from ccdgraph.data import DatasetName, read_dataset
from ccdgraph.data.datasets import batches

GOOD = {(case[0], case[1]): case[2] for case in CASES}
U_DATA = GOOD["movielens-100k", "u.data"]
RATINGS_DAT = GOOD["movielens-1m", "ratings.dat"]
RATINGS_CSV = GOOD["movielens-20m", "ratings.csv"]
CHECK_INS = GOOD["gowalla", "loc-gowalla_totalCheckins.txt"]
BEHAVIOR = GOOD["taobao", "UserBehavior.csv"]
EVENTS = GOOD["retailrocket", "events.csv"]
BUYS = GOOD["h-and-m", "transactions_train.csv"]
NYC = GOOD["foursquare-nyc", "dataset_TSMC2014_NYC.txt"].encode("latin-1")
YELP = lines(REVIEWS)

BAD: list[tuple[DatasetName, str, str | bytes, str]] = [
    ("movielens-100k", "u.data", "", "no rows"),
    ("movielens-100k", "u.data", U_DATA + "1\t2\t3\n", "row 4: 3 fields, not 4; repair"),
    ("movielens-100k", "u.data", U_DATA + "1\t2\t\t978300760\n", "rating in .*row 4: .*missing"),
    ("movielens-100k", "u.data", U_DATA + "1\t2\t3\t88125", "row 4: .*'88125'; in 's' it is not"),
    ("movielens-100k", "u.data", U_DATA + "1\t2\t3\t978300760000\n", "row 4: .*between 1990 and"),
    ("movielens-100k", "u.data", U_DATA + "1\t2\t3.O\t978300760\n", "row 4: .*'3.O'.*number"),
    ("movielens-100k", "u.data", U_DATA + "1\t2\t6\t978300760\n", "row 4: .*'6'; .* from 1 to 5"),
    (
        "movielens-100k",
        "u.data",
        U_DATA + "-1\t2\t3\t978300760\n",
        "user in .*row 4: .*'-1'; a num",
    ),
    ("movielens-100k", "u.data", U_DATA + "1\t\t3\t978300760\n", "item in .*row 4: .*missing"),
    ("movielens-100k", "u.data", U_DATA.encode() + b"\xff\t1\t3\t978300760\n", "row 4: .*UTF8"),
    ("movielens-100k", "u.data", RATINGS_CSV, "row 1: 1 fields, not 4"),
    ("movielens-1m", "ratings.dat", RATINGS_DAT + "1::2::3\n", "row 4: 3 fields, not 4"),
    ("movielens-1m", "ratings.dat", "UserID::MovieID::Rating::Timestamp\n", "time in .*row 1"),
    ("movielens-20m", "ratings.csv", RATINGS_CSV.split("\n", 1)[1], "no column 'userId', only 1,"),
    ("movielens-20m", "ratings.csv", RATINGS_CSV[:32], "no rows"),
    ("movielens-20m", "ratings.csv", RATINGS_CSV + "1,2,3\n", "row 4: 3 fields, not 4"),
    ("gowalla", "totalCheckins.txt", CHECK_INS + "0\t2010-13-01T00:00:00Z\t1\t1\t5\n", "row 4: "),
    ("gowalla", "totalCheckins.txt", CHECK_INS + "0\t1287532527\t1\t1\t5\n", "row 4: .*one form"),
    ("gowalla", "totalCheckins.txt", "0\t1287532527\t1\t1\t5\n", "row 1: .*'date' as published"),
    (
        "retailrocket",
        "events.csv",
        EVENTS.replace(",view,", ",look,"),
        "row 1: .*'look'; .*view, a",
    ),
    ("retailrocket", "events.csv", EVENTS.replace("332117,", "332,"), "row 1: .*in 'ms' it is not"),
    ("taobao", "UserBehavior.csv", BEHAVIOR + "1,2,3,pv,2017-11-25\n", "row 5: .*one form"),
    ("taobao", "UserBehavior.csv", "2,7,9,pv,-1511544070\n", "no rows that are kept"),
    ("h-and-m", "transactions_train.csv", BUYS + "2018-09-31,ab,01,0.5,1\n", "row 4: .*2018-09-31"),
    ("foursquare-nyc", "x.txt", NYC.replace(b"Tue Apr 03", b"Tue Avr 03", 1), "row 1: .*Avr"),
    ("foursquare-nyc", "x.txt", NYC.replace(b"+0000 2012", b"+0000", 1), "row 1: the value"),
    ("amazon-2014", "b.csv", GOOD["amazon-2018", "Books.csv"], "row 1: .*2018 has the item first"),
    ("amazon-2018", "b.csv", GOOD["amazon-2014", "ratings_Books.csv"], "row 1: .*'amazon-2014'"),
    ("amazon-2023", "b.csv", GOOD["amazon-2014", "ratings_Books.csv"], "no column 'user_id'"),
    ("amazon-2014", "b.json", "{'reviewerID': 'A', 'asin': 'B'}\n", "row 1: it is not JSON"),
    ("amazon-2014", "b.json", lines(AMAZON_JSON).replace("1374019200", '"x"'), "row 2: 'unixRev"),
    ("yelp", "review.json", "", "no rows"),
    ("yelp", "review.json", YELP[:-20], "row 2: it is not JSON; .*cut short"),
    ("yelp", "review.json", YELP + "[1]\n", "row 3: it is not a JSON object"),
    ("yelp", "review.json", YELP.replace('"u2"', "2"), "row 2: 'user_id' is 2, expected str"),
    (
        "yelp",
        "review.json",
        YELP.replace('"stars": 2', '"star": 2'),
        "rating in .*row 2: .*missing",
    ),
    ("yelp", "review.json", YELP.replace('"user_id": "u2", ', ""), "user in .*row 2: .*missing"),
    ("yelp", "review.json", YELP.replace("2013-05-07", "7 May 2013"), "time in .*row 2: .*7 May"),
    ("lightgcn", "train.txt", "0 5 3\n1 4,2\n", "row 2: '4,2' is not an id"),
    ("lightgcn", "train.txt", "0 5 3\n\n1 4\n", "row 2: '' is not an id"),
    ("lightgcn", "train.txt", "0\n1\n", "no rows"),
]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(("name", "file", "content", "message"), BAD)
def test_bad_rows_are_refused_by_file_and_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: DatasetName,
    file: str,
    content: str | bytes,
    message: str,
    small: bool,
) -> None:
    raw = content.encode() if isinstance(content, str) else content
    (tmp_path / file).write_bytes(raw)
    if small:  # a row counts from the start of the file, not of its batch
        longest = max((len(line) for line in raw.splitlines()), default=0)
        monkeypatch.setattr(batches, "BLOCK", longest + 10)
        monkeypatch.setattr(batches, "LINES", 1)
    with pytest.raises(ValueError, match=message) as caught:
        read_dataset(name, tmp_path / file)
    assert "\n" not in str(caught.value)
    assert file in str(caught.value)


def test_files_cut_short_are_refused(tmp_path: Path) -> None:
    (tmp_path / "u.data.gz").write_bytes(gzip.compress(U_DATA.encode() * 9000)[:-40])
    (tmp_path / "review.json.gz").write_bytes(gzip.compress(YELP.encode() * 9000)[:-40])
    (tmp_path / "plain.gz").write_text(U_DATA)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-100k/u.data", U_DATA * 9000)
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-40])
    (tmp_path / "rot.zip").write_bytes(whole[:900] + bytes(100) + whole[1000:])
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(tmp_path / "u.data.gz")
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "x.tgz").read_bytes()[:-40])
    names: list[tuple[DatasetName, str]] = [
        ("movielens-100k", "u.data.gz"),
        ("yelp", "review.json.gz"),
        ("movielens-100k", "plain.gz"),
        ("movielens-100k", "cut.zip"),
        ("movielens-100k", "rot.zip"),
        ("movielens-100k", "cut.tgz"),
    ]
    for name, file in names:
        with pytest.raises(ValueError, match=f"{file}' is cut short or damaged"):
            read_dataset(name, tmp_path / file)


def test_a_missing_or_ambiguous_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"get it from https://snap\.stanford\.edu"):
        read_dataset("gowalla", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no 'u.data' or '\*.inter'; give the path"):
        read_dataset("movielens-100k", tmp_path)
    with pytest.raises(ValueError, match=r"holds no 'train.txt' with 'test.txt'"):
        read_dataset("lightgcn", tmp_path)
    for file in ("Books.csv", "Electronics.csv"):
        (tmp_path / file).write_text(GOOD["amazon-2018", "Books.csv"])
    with pytest.raises(ValueError, match=r"holds 2 files like '\*.csv' \(Books.csv, Electronics"):
        read_dataset("amazon-2018", tmp_path)


def test_names_and_events_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'movielens_1m'; did you mean 'movielens-1m'"):
        read_dataset("movielens_1m", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'xyz'; it must be one of .*yelp"):
        read_dataset("xyz", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'events' is given, but 'gowalla' has one kind only"):
        read_dataset("gowalla", tmp_path, events=["view"])
    with pytest.raises(ValueError, match="'events' holds 'click'; name some of view, addtocart"):
        read_dataset("retailrocket", tmp_path, events=["click"])
    with pytest.raises(ValueError, match="'events' is empty; name some"):
        read_dataset("retailrocket", tmp_path, events=[])
