"""Milliseconds to answer one request for a known and for a new user, on one thread.

    python benchmarks/serving.py --to benchmarks/results/serving.json

The model is random, of Gowalla's size: what a request costs does not depend on what was learnt. A
known user is looked up by id; a new one comes with as many item ids as an average user has and is
folded in. Both ways the answer is external ids, with what the user has left out. FAISS and ONNX
Runtime answer from the files of ``ccdgraph export``, where they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ccdgraph import checkpoint
from ccdgraph.data import Interactions, UserItems
from ccdgraph.run import Served, export
from ccdgraph.run.folder import SERVED, hardware, versions

SIZES = {"users": 29_858, "items": 40_981, "interactions": 1_027_370, "dim": 64}
NUM_ITEMS_OF_A_NEW_USER, K = 34, 20


def store_a_random_model(folder: Path) -> None:
    """Writes what a run of this size would serve."""
    draw = torch.Generator().manual_seed(0)
    users, items, dim = SIZES["users"], SIZES["items"], SIZES["dim"]
    owner, owned = (
        torch.randint(n, (SIZES["interactions"],), generator=draw) for n in (users, items)
    )
    seen = UserItems.from_interactions([Interactions(owner, owned)], users, items)
    tensors = {
        "user": torch.randn(users, dim, generator=draw),
        "item": torch.randn(items, dim, generator=draw),
        "seen_indptr": seen.indptr,
        "seen_item": seen.item,
    }
    names = {"users": [f"u{n}" for n in range(users)], "items": [f"i{n}" for n in range(items)]}
    checkpoint.save(folder / SERVED, tensors, names)


def milliseconds(answer: Callable[[Any], Any], requests: Sequence[Any]) -> dict[str, float]:
    """Median and 99th percentile; a tenth of the requests go first and do not count.

    Seconds of the wall tell what a user waits, those of the processor what a request costs when
    other work shares the core.
    """
    found: dict[str, list[float]] = {"wall": [], "processor": []}
    for request in [*requests[: len(requests) // 10], *requests]:
        start = time.perf_counter(), time.thread_time()
        answer(request)
        found["wall"].append(time.perf_counter() - start[0])
        found["processor"].append(time.thread_time() - start[1])
    row = {}
    for clock, seconds in found.items():
        counted = [1e3 * value for value in seconds[-len(requests) :]]
        row[f"{clock}, median ms"] = statistics.median(counted)
        row[f"{clock}, 99th percentile ms"] = statistics.quantiles(counted, n=100)[98]
    return row


def with_faiss(served: Served, folder: Path) -> Callable[[str], Any]:
    """Answers for known users from the exported index."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(folder / "items.faiss"))
    rows, seen, names = served.embeddings.user.numpy(), served.seen, served.items

    def answer(user: str) -> Any:
        place = served.users.index(user)
        own = seen.item[seen.indptr[place] : seen.indptr[place + 1]].numpy()
        hidden = faiss.IDSelectorNot(faiss.IDSelectorBatch(own))
        search = faiss.SearchParameters(sel=hidden)
        return names[index.search(rows[place : place + 1], K, params=search)[1][0]]

    return answer


def with_onnx(served: Served, folder: Path) -> Callable[[str], Any]:
    """Answers for known users from the exported graph."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "recommend.onnx"), options)
    rows, seen, names = served.embeddings.user.numpy(), served.seen, served.items

    def answer(user: str) -> Any:
        place = served.users.index(user)
        own = seen.item[seen.indptr[place] : seen.indptr[place + 1]].numpy()
        asked = {
            "embedding": rows[place : place + 1],
            "hidden": own[None],
            "k": np.array([K]),
        }
        return names[session.run(["item"], asked)[0][0]]

    return answer


def measure(folder: Path, requests: int) -> dict[str, dict[str, float]]:
    """A row for every way to answer; ways whose package is missing are left out."""
    store_a_random_model(folder / "run")
    served = Served.load(folder / "run")
    draw = torch.Generator().manual_seed(1)
    known = served.users[torch.randint(SIZES["users"], (requests,), generator=draw).numpy()]
    baskets = torch.randint(SIZES["items"], (requests, NUM_ITEMS_OF_A_NEW_USER), generator=draw)
    new = [served.items[row.numpy()].tolist() for row in baskets]
    found = {
        "known user": milliseconds(lambda user: served.recommend(user, K), known.tolist()),
        "new user, folded in": milliseconds(lambda items: served.recommend_new(items, K), new),
    }
    for name, format, answering in (
        ("known user, FAISS (exact)", "faiss", with_faiss),
        ("known user, ONNX Runtime", "onnx", with_onnx),
    ):
        try:
            export(folder / "run", format, folder / format)
            answer = answering(served, folder / format)
        except (ImportError, ValueError) as error:
            print(f"{name}: left out, {error}")
            continue
        assert list(answer(known[0])) == [i for i, _ in served.recommend(known[0], K)]
        found[name] = milliseconds(answer, known.tolist())
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.requests)
    for name, row in found.items():
        print(f"{name:<28}" + "".join(f"{key} {value:8.3f}   " for key, value in row.items()))
    about = {
        "command": "python benchmarks/serving.py --to benchmarks/results/serving.json",
        "hardware": hardware(),
        "versions": versions(),
        "load average": os.getloadavg()[0],
        **SIZES,
        "k": K,
        "items of a new user": NUM_ITEMS_OF_A_NEW_USER,
        "requests": options.requests,
    }
    if options.to:
        options.to.write_text(json.dumps({"about": about, "requests": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
