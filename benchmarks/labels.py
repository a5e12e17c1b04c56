"""Size and speed of a label store, and of the file formats it could have had.

    python benchmarks/labels.py --to labels.json

The lists are those of a random model over a catalogue of Gowalla's size, 100 items for each of
29,858 users. Every figure is the median of as many runs as asked, after one that does not count; a
write includes sorting, checksum and sync to disk, a read the widening to int64 and float32.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet

from ccdgraph.distill.labels import LabelWriter, SoftLabels, StoredLabels, read_labels
from ccdgraph.distill.labels.files import encode
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists

NUM_READERS, BATCH = 8, 1024


def median(run: Callable[[], Any], repeat: int) -> float:
    """Median seconds of ``run``."""
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def lists_of_a_random_model(num_users: int, num_items: int, k: int) -> SoftLabels:
    """Lists of a random model of 32 dimensions."""
    draw = torch.Generator().manual_seed(0)
    tables = (torch.randn(n, 32, generator=draw) for n in (num_users, num_items))
    everyone = torch.arange(num_users)
    scores, lists = recommend_lists(Embeddings(*tables), everyone, k)
    return SoftLabels.from_lists(everyone, lists, scores, version="0")


def write(labels: SoftLabels, folder: Path, *, half: bool, repeat: int, **sizes: int) -> float:
    """Median seconds to write and commit the labels of a block."""
    columns = (labels.user, labels.item, labels.rank, labels.score)
    blocks = iter(range(repeat + 1))
    with LabelWriter(folder, {}) as writer:

        def one() -> None:
            writer.write(SoftLabels(*columns, "0", next(blocks)), half=half, **sizes)

        return median(one, repeat)


def read_batches(labels: StoredLabels, seed: int, *, padded: bool) -> None:
    """Every user once, in random order."""
    draw = torch.Generator().manual_seed(seed)
    for user in torch.randperm(labels.num_users, generator=draw).split(BATCH):
        labels.lists(user) if padded else labels.for_users(user)


def read_after(folder: Path, seed: int, repeat: int, gate: Any) -> None:
    """What one reading process does."""
    torch.set_num_threads(1)
    labels = read_labels(folder, "0", 0)
    gate.wait()
    for _ in range(repeat):
        read_batches(labels, seed, padded=False)
    gate.wait()


def read_at_once(folder: Path, repeat: int) -> float:
    """Seconds until every one of the reading processes has read all users ``repeat`` times."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(NUM_READERS + 1)
    readers = [
        context.Process(target=read_after, args=(folder, seed, repeat, gate))
        for seed in range(NUM_READERS)
    ]
    for reader in readers:
        reader.start()
    gate.wait()
    start = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - start
    for reader in readers:
        reader.join()
    return seconds


def store_figures(labels: SoftLabels, folder: Path, repeat: int, **sizes: int) -> dict[str, Any]:
    """Megabytes, and million rows a second, of float32 and float16 scores."""
    found: dict[str, Any] = {}
    for name, half in (("float32", False), ("float16", True)):
        place, rows = folder / name, len(labels) / 1e6
        seconds = write(labels, place, half=half, repeat=repeat, **sizes)
        stored = read_labels(place, "0", 0)
        everyone = torch.arange(stored.num_users)
        found[name] = {
            "megabytes": next((place / "parts").iterdir()).stat().st_size / 1e6,
            "write": rows / seconds,
            "open and check": rows / median(partial(read_labels, place, "0", 0), repeat),
            "read, in order": rows / median(partial(stored.for_users, everyone), repeat),
            "read, random batches": rows
            / median(partial(read_batches, stored, 0, padded=False), repeat),
            "read, as padded lists": rows
            / median(partial(read_batches, stored, 0, padded=True), repeat),
            f"read by {NUM_READERS} processes, total": rows
            * (NUM_READERS * repeat / read_at_once(place, repeat)),
        }
    return found


def format_figures(labels: SoftLabels, folder: Path, repeat: int, **sizes: int) -> dict[str, Any]:
    """Megabytes and seconds of Arrow and Parquet, with and without compression."""
    table = pa.ipc.open_file(encode(labels, **sizes)[0]).read_all()

    def write_arrow(path: Path, compression: str | None) -> None:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_file(path, table.schema, options=options) as file:
            file.write_table(table)

    def read_arrow(path: Path) -> None:
        touch(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def write_parquet(path: Path, compression: str) -> None:
        parquet.write_table(table, path, compression=compression)

    def read_parquet(path: Path) -> None:
        touch(parquet.read_table(path, memory_map=True))

    def touch(read: pa.Table) -> None:
        for column in read.columns:
            column.combine_chunks().values.to_numpy().sum()

    found = {}
    for name, to, back in (
        ("Arrow", partial(write_arrow, compression=None), read_arrow),
        ("Arrow, zstd", partial(write_arrow, compression="zstd"), read_arrow),
        ("Parquet", partial(write_parquet, compression="none"), read_parquet),
        ("Parquet, zstd", partial(write_parquet, compression="zstd"), read_parquet),
    ):
        path = folder / name
        found[name] = {
            "write": median(partial(to, path), repeat),
            "read": median(partial(back, path), repeat),
            "megabytes": path.stat().st_size / 1e6,
        }
    return found


def show(title: str, figures: dict[str, dict[str, float]]) -> None:
    """One column for each entry."""
    print(f"\n{title:<34}" + "".join(f"{name:>16}" for name in figures))
    for row in next(iter(figures.values())):
        print(f"{row:<34}" + "".join(f"{column[row]:>16.3f}" for column in figures.values()))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=29_858)
    parser.add_argument("--items", type=int, default=40_981)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    sizes = {"num_users": options.users, "num_items": options.items}
    labels = lists_of_a_random_model(options.users, options.items, options.k)
    with tempfile.TemporaryDirectory() as folder:
        store = store_figures(labels, Path(folder), options.repeat, **sizes)
        formats = format_figures(labels, Path(folder), options.repeat, **sizes)
    print(f"{len(labels)} rows, {os.cpu_count()} cores, torch {torch.__version__}")
    show("million rows a second", store)
    show("file formats, seconds", formats)
    if options.to:
        about = {**sizes, "k": options.k, "rows": len(labels), "cores": os.cpu_count()}
        text = json.dumps({"about": about, "store": store, "formats": formats}, indent=1)
        options.to.write_text(text + "\n")


if __name__ == "__main__":
    main()
