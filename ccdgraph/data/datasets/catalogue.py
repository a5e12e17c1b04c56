"""The data sets that ``read_dataset`` knows, each in a few lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ccdgraph.data.datasets.layouts import Dataset, Layout

DatasetName = Literal[
    "amazon-2014",
    "amazon-2018",
    "amazon-2023",
    "foursquare-nyc",
    "foursquare-tky",
    "gowalla",
    "h-and-m",
    "lightgcn",
    "movielens-100k",
    "movielens-1m",
    "movielens-10m",
    "movielens-20m",
    "movielens-25m",
    "movielens-32m",
    "movielens-latest",
    "retailrocket",
    "taobao",
    "yelp",
]

_RATED = ("user", "item", "rating", "time")
_STARS, _HALF_STARS = (1, 5), (0.5, 5)
_ATOMIC = Layout(  # RecBole's form of MovieLens
    ("*.inter",), "user_id", "item_id", "timestamp", "rating", separator="\t"
)
_MOVIELENS_DAT = Layout(("ratings.dat",), rating="rating", columns=_RATED, separator="::")
_MOVIELENS_CSV = Layout(("ratings.csv",), "userId", "movieId", "timestamp", "rating")
_AMAZON_JSON = Layout(("*.json",), "reviewerID", "asin", "unixReviewTime", "overall", kind="json")
_AMAZON_2023 = Layout(("*.csv",), "user_id", "parent_asin", "timestamp", "rating", unit="ms")
_ASIN = "^[0-9A-Z]{10}$"  # a reviewer's id is longer


# As GroupLens publishes them beside the archives; "latest" changes.
_MD5 = {
    "100k": "0e33842e24a9c977be4e0107933c0723",
    "1m": "c4d9eecfca2ab87c1945afe126590906",
    "10m": "ce571fd55effeba0271552578f2648bd",
    "20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "32m": "d472be332d4daa821edc399621853b57",
}


def _movielens(size: str, scale: tuple[float, float], *layouts: Layout) -> Dataset:
    return Dataset(
        f"https://grouplens.org/datasets/movielens/{size}",
        (*layouts, _ATOMIC),
        scale,
        archive=f"https://files.grouplens.org/datasets/movielens/ml-{size}.zip"
        if size in _MD5
        else "",
        md5=_MD5.get(size, ""),
    )


def _foursquare(city: str) -> Dataset:
    venue = ("userId", "venueId", "venueCategoryId", "venueCategory")
    where = ("latitude", "longitude", "timezoneOffset", "utcTimestamp")
    columns = ("userId", "venueId", "utcTimestamp")
    return Dataset(
        "https://sites.google.com/site/yangdingqi/home/foursquare-dataset",
        (
            Layout(
                (f"dataset_TSMC2014_{city}.txt",),
                *columns,
                columns=(*venue, *where),
                separator="\t",
                unit="clock",
            ),
            Layout((f"dataset_TSMC2014_{city}.csv",), *columns, unit="clock"),
        ),
    )


DATASETS: dict[DatasetName, Dataset] = {
    "movielens-100k": _movielens(
        "100k", _STARS, Layout(("u.data",), rating="rating", columns=_RATED, separator="\t")
    ),
    "movielens-1m": _movielens("1m", _STARS, _MOVIELENS_DAT),
    "movielens-10m": _movielens("10m", _HALF_STARS, _MOVIELENS_DAT),
    "movielens-20m": _movielens("20m", _HALF_STARS, _MOVIELENS_CSV),
    "movielens-25m": _movielens("25m", _HALF_STARS, _MOVIELENS_CSV),
    "movielens-32m": _movielens("32m", _HALF_STARS, _MOVIELENS_CSV),
    "movielens-latest": _movielens("latest", _HALF_STARS, _MOVIELENS_CSV),
    "gowalla": Dataset(
        "https://snap.stanford.edu/data/loc-Gowalla.html",
        (
            Layout(
                ("*otalCheckins.txt",),
                columns=("user", "time", "latitude", "longitude", "item"),
                separator="\t",
                unit="date",
            ),
        ),
    ),
    "yelp": Dataset(
        "https://www.yelp.com/dataset",
        (
            Layout(
                ("*review.json",),
                *("user_id", "business_id", "date", "stars"),
                unit="date",
                kind="json",
            ),
        ),
        _STARS,
    ),
    "amazon-2014": Dataset(
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        (Layout(("*.csv",), rating="rating", columns=_RATED), _AMAZON_JSON),
        (0, 5),
        item_form=_ASIN,
        mixed_up="a file of 2018 has the item first, read it as 'amazon-2018'",
    ),
    "amazon-2018": Dataset(
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        (
            Layout(("*.csv",), rating="rating", columns=("item", "user", "rating", "time")),
            _AMAZON_JSON,
        ),
        (0, 5),
        item_form=_ASIN,
        mixed_up="a file of 2014 has the user first, read it as 'amazon-2014'",
    ),
    "amazon-2023": Dataset(
        "https://amazon-reviews-2023.github.io/",
        (_AMAZON_2023, replace(_AMAZON_2023, files=("*.jsonl",), kind="json")),
        (0, 5),
    ),
    "retailrocket": Dataset(
        "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
        (Layout(("events.csv",), "visitorid", "itemid", "timestamp", None, "event", unit="ms"),),
        events=("view", "addtocart", "transaction"),
    ),
    "taobao": Dataset(
        "https://tianchi.aliyun.com/dataset/649",
        (
            Layout(
                ("UserBehavior.csv",),
                event="event",
                columns=("user", "item", "category", "event", "time"),
            ),
        ),
        events=("pv", "cart", "fav", "buy"),
        span=(1_511_539_200, 1_512_316_800),  # 25 November to 3 December 2017 in Beijing
        drop_outside=True,
    ),
    "h-and-m": Dataset(
        "https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations",
        (Layout(("transactions_train.csv",), "customer_id", "article_id", "t_dat", unit="date"),),
    ),
    "foursquare-nyc": _foursquare("NYC"),
    "foursquare-tky": _foursquare("TKY"),
    "lightgcn": Dataset(
        "https://github.com/gusye1234/LightGCN-PyTorch/tree/master/data",
        (Layout(("train.txt", "test.txt"), time=None, kind="lists"),),
    ),
}
