"""A few rows of every published data set, in its own format, and what they hold."""

import json

Row = tuple[str, str, str | None, float | None]

MOVIELENS: list[Row] = [
    ("9", "31", "2000-01-01 00:00:00", 4),
    ("1", "1193", "2000-12-31 22:12:40", 5),
    ("1", "31", "2000-12-31 22:12:40", 3),
]
ATOMIC = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t1193\t5\t978300760\n1\t31\t3\t978300760\n9\t31\t4\t946684800\n"
)
HALVES: list[Row] = [(u, i, t, s and s - 0.5) for u, i, t, s in MOVIELENS]
RATINGS_CSV = (
    "userId,movieId,rating,timestamp\n"
    "1,1193,4.5,978300760\n1,31,2.5,978300760\n9,31,3.5,946684800\n"
)
GOWALLA = (
    "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
    "0\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t420315\n"
    "0\t2010-10-17T23:42:03Z\t30.2557309927\t-97.7633857727\t22847\n"
)
REVIEWS = [
    {"review_id": "x", "user_id": "-u_1", "business_id": "b-2", "stars": 4.0, "useful": 0}
    | {"text": 'Good, "very" good.\nReally: caf\u00e9', "date": "2014-02-05 20:30:30"},
    {"stars": 2, "user_id": "u2", "business_id": "b-2", "date": "2013-05-07", "text": "no"},
]
AMAZON: list[Row] = [
    ("A1B0SW58JCS8ZM", "0000031887", "2013-07-17 00:00:00", 3),
    ("A2IIIDRK3PRRZY", "B00ABCDEF1", "2013-07-18 00:00:00", 5),
]
AMAZON_JSON = [
    {"reviewerID": "A2IIIDRK3PRRZY", "asin": "B00ABCDEF1", "overall": 5.0, "helpful": [0, 1]}
    | {"unixReviewTime": 1374105600, "reviewText": "fine"},
    {"reviewerID": "A1B0SW58JCS8ZM", "asin": "0000031887", "unixReviewTime": 1374019200}
    | {"overall": 3.0, "style": {"Format:": "Hardcover"}},
]
AMAZON_2023: list[Row] = [
    ("AEY", "B08", "2020-05-05 14:08:48", 5),
    ("AF2", "007", "2021-01-01 00:00:00", 1),
]
HEX = "000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318"
TSMC = '{}\t{}\t4bf58dd8d48988d127951735\t"Caf\xe9 bar\t40.719\t-74.002\t-240\t{}\n'
TSMC_ROWS: list[Row] = [
    ("470", "49bbd6c0", "2012-04-03 18:00:09", None),
    ("979", "4a43c0ae", "2012-04-03 18:00:25", None),
]
TSMC_LINES = TSMC.format("979", "4a43c0ae", "Tue Apr 03 18:00:25 +0000 2012") + TSMC.format(
    "470", "49bbd6c0", "Tue Apr 03 18:00:09 +0000 2012"
)

TSMC_CSV = (
    "userId,venueId,venueCategoryId,venueCategory,latitude,longitude,timezoneOffset,utcTimestamp\n"
    '979,4a43c0ae,4b,"Bar, caf\xe9",1,2,-240,Tue Apr 03 18:00:25 +0000 2012\n'
    "470,49bbd6c0,4b,Bar,1,2,540,Wed Apr 04 03:00:09 +0900 2012\n"
)


def lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


CASES: list[tuple[str, str, str, list[Row]]] = [
    (
        "movielens-100k",
        "u.data",
        "1\t1193\t5\t978300760\n1\t31\t3\t978300760\n9\t31\t4\t946684800\n",
        MOVIELENS,
    ),
    ("movielens-100k", "ml-100k.inter", ATOMIC, MOVIELENS),
    (
        "movielens-1m",
        "ratings.dat",
        "1::1193::5::978300760\n1::31::3::978300760\n9::31::4::946684800\n",
        MOVIELENS,
    ),
    (
        "movielens-10m",
        "ratings.dat",
        "1::1193::4.5::978300760\n1::31::2.5::978300760\n9::31::3.5::946684800\n",
        HALVES,
    ),
    *(
        (f"movielens-{size}", "ratings.csv", RATINGS_CSV, HALVES)
        for size in ("20m", "25m", "32m", "latest")
    ),
    (
        "gowalla",
        "loc-gowalla_totalCheckins.txt",
        GOWALLA,
        [
            ("0", "22847", "2010-10-17 23:42:03", None),
            ("0", "420315", "2010-10-18 22:17:43", None),
            ("0", "22847", "2010-10-19 23:55:27", None),
        ],
    ),
    (
        "yelp",
        "yelp_academic_dataset_review.json",
        lines(REVIEWS),
        [
            ("u2", "b-2", "2013-05-07 00:00:00", 2),
            ("-u_1", "b-2", "2014-02-05 20:30:30", 4),
        ],
    ),
    (
        "amazon-2014",
        "ratings_Books.csv",
        "A2IIIDRK3PRRZY,B00ABCDEF1,5.0,1374105600\nA1B0SW58JCS8ZM,0000031887,3.0,1374019200\n",
        AMAZON,
    ),
    ("amazon-2014", "reviews_Books_5.json", lines(AMAZON_JSON), AMAZON),
    (
        "amazon-2018",
        "Books.csv",
        "B00ABCDEF1,A2IIIDRK3PRRZY,5.0,1374105600\n0000031887,A1B0SW58JCS8ZM,3.0,1374019200\n",
        AMAZON,
    ),
    ("amazon-2018", "Electronics_5.json", lines(AMAZON_JSON), AMAZON),
    (
        "amazon-2023",
        "Books.csv",
        "user_id,parent_asin,rating,timestamp,history\n"
        "AF2,007,1.0,1609459200000,B08 B09\nAEY,B08,5.0,1588687728923,\n",
        AMAZON_2023,
    ),
    (
        "amazon-2023",
        "Books.jsonl",
        lines(
            [
                {
                    "rating": 1.0,
                    "title": "t",
                    "user_id": "AF2",
                    "parent_asin": "007",
                    "asin": "1",
                    "timestamp": 1609459200000,
                },
                {
                    "rating": 5.0,
                    "images": [],
                    "user_id": "AEY",
                    "parent_asin": "B08",
                    "asin": "2",
                    "timestamp": 1588687728923,
                },
            ]
        ),
        AMAZON_2023,
    ),
    (
        "retailrocket",
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n1433221332116,57,transaction,355908,4000\n",
        [
            ("57", "355908", "2015-06-02 05:02:12", None),
            ("257597", "355908", "2015-06-02 05:02:12", None),
        ],
    ),
    (
        "taobao",
        "UserBehavior.csv",
        "1,2268318,2520377,pv,1511544070\n100,7,9,buy,1511539200\n2,7,9,pv,-1511544070\n3,7,9,pv,1512316800\n",
        [
            ("100", "7", "2017-11-24 16:00:00", None),
            ("1", "2268318", "2017-11-24 17:21:10", None),
        ],
    ),
    (
        "h-and-m",
        "transactions_train.csv",
        f"t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-21,{HEX},0663713001,0.05,2\n2018-09-20,{HEX},0663713001,0.05,2\n2018-09-20,{HEX},0663713001,0.05,2\n",
        [
            (HEX, "0663713001", "2018-09-20 00:00:00", None),
            (HEX, "0663713001", "2018-09-20 00:00:00", None),
            (HEX, "0663713001", "2018-09-21 00:00:00", None),
        ],
    ),
    ("foursquare-nyc", "dataset_TSMC2014_NYC.txt", TSMC_LINES, TSMC_ROWS),
    (
        "foursquare-tky",
        "dataset_TSMC2014_TKY.csv",
        TSMC_CSV,
        TSMC_ROWS,
    ),
    (
        "lightgcn",
        "train.txt",
        "0 5 3\n1\n2 5 \n",
        [
            ("0", "5", None, None),
            ("0", "3", None, None),
            ("2", "5", None, None),
        ],
    ),
]
