"""Seconds and peak memory of a whole CCD stream against its size.

    python benchmarks/scale.py --to benchmarks/results/scale_cpu.json
    python benchmarks/scale.py --rows 5e5 5e6 5e7 --to benchmarks/results/scale_cuda.json

Every size runs in a process of its own, on the accelerator if there is one: draw a skewed stream
(50 interactions for each user and item), write it as Parquet, read it, split it in a base block and
another, learn both with CCD (two LightGCN teachers d = 64, a LightGCN student d = 16), and measure.
An epoch always has as many steps, so batches grow with the data and every row is seen once. What
would cost the square of the entities is sampled, in numbers that stay the same at every size: users
that the teachers rank, users that are replayed, users of model selection and of the test, and the
sums of LWC-KD. Nobody is compared with everybody (mean_degree 0). One epoch a stage is no tuned
model: recall is there to show that the stages learn, next to lists by popularity.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet

from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.data import Stream, read_interactions, skewed_interactions, split_stream
from ccdgraph.data.interactions import Interactions, is_in
from ccdgraph.evaluate import evaluate, seen_items
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.ranking import Scorer
from ccdgraph.run.folder import hardware, versions
from ccdgraph.train import FitConfig

PER_ENTITY = 50  # interactions for each user, and for each item
# Settings of the C library that decide whether freed memory is handed back and mapped anew.
MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "THP_MEM_ALLOC_ENABLE")
MACHINE = ("hardware", "sizes")


def settings(stream: Stream, steps: int, asked: int) -> CCDConfig:
    """One epoch of ``steps`` steps for every stage; ``asked`` users wherever users are sampled."""
    base, block = (math.ceil(len(part.train) / steps) for part in stream)
    fit = FitConfig(epochs=1, lr=0.02, max_steps=steps)
    replay = ReplayConfig(depth=50, users=asked, batch_size=max(1, asked // 2))
    return CCDConfig(
        student=BackboneConfig(dim=16),
        teachers=(BackboneConfig(dim=64),) * 2,
        base=BaseConfig(batch_size=base, negatives=1, fit=fit),
        generation=GenerationConfig(
            list_length=20,
            rest_items=1000,
            rest_users=500,
            users=asked,
            entities="block",
            exclude_listed=False,
            batch_size=base,
            fit=fit,
        ),
        update=StudentConfig(replay=(replay,), batch_size=block, fit=fit),
        teacher=TeacherConfig(
            mean_degree=0.0, num_drawn=100, replay=(replay,), batch_size=block, fit=fit
        ),
        valid_users=asked,
    )


def write_rows(rows: int, path: Path, seed: int) -> None:
    """The Parquet file that a size is read from."""
    entities = max(rows // PER_ENTITY, 100)
    drawn = skewed_interactions(entities, entities, rows, seed=seed)
    columns = {"user": drawn.user, "item": drawn.item, "time": drawn.time}
    parquet.write_table(pa.table({name: x.numpy() for name, x in columns.items()}), path)


def measure(path: Path, steps: int, asked: int) -> dict[str, Any]:
    """Seconds by stage, peak memory and quality of one size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds: dict[str, float] = {}
    processor: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started, before = time.perf_counter(), time.process_time()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - started
        processor[name] = time.process_time() - before
        print(f"  {name:24s} {seconds[name]:9.2f} s", flush=True)
        return result

    events = timed("read", lambda: read_interactions(path))
    stream = timed("split", lambda: split_stream(events, base=0.75, num_blocks=1))
    config, rows = settings(stream, steps, asked), len(events)
    stream = stream.to(device)
    learner = CCD(config)
    learner.on_stage = lambda: print(f"  {list(learner.seconds.items())[-1]}", flush=True)
    for block in stream:
        timed(f"learn block {block.index}", lambda block=block: learner.update(block))
    quality = timed("measure", lambda: recall(learner, stream, asked))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": rows,
        "users": len(stream.users),
        "items": len(stream.items),
        "train": [len(block.train) for block in stream],
        "processor seconds": processor,
        "seconds": seconds | {f"block {k}": v for k, v in learner.seconds.items()},
        "peak_bytes": {"host": peak, "device": device_peak(device)},
        "recall@20": quality,
        "config": asdict(config),
    }


def device_peak(device: torch.device) -> int:
    """Most bytes of tensors on an accelerator; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def recall(learner: CCD, stream: Stream, asked: int) -> dict[str, float]:
    """Recall@20 of a sample of the last block's test users, seen items left out."""
    last = stream[-1]
    seen = seen_items(stream, tested=last.index, learnt=last.index)
    users = last.test.user.unique()
    draw = torch.Generator(device=users.device).manual_seed(0)
    order = torch.randperm(len(users), generator=draw, device=users.device)
    test = last.test[is_in(last.test.user, users[order[:asked]].sort().values)]
    scorers: dict[str, Scorer] = {
        "student": learner.knowledge["student"],
        "teacher": learner.ensemble(),
        "popularity": by_popularity(
            [block.train for block in stream], last.num_users, len(stream.items)
        ),
    }
    return {n: evaluate(s, test, seen, ks=(20,)).mean()["recall@20"] for n, s in scorers.items()}


def by_popularity(parts: list[Interactions], num_users: int, num_items: int) -> Embeddings:
    """Everyone's score of an item is the number of its interactions."""
    count = torch.bincount(torch.cat([part.item for part in parts]), minlength=num_items)
    return Embeddings(count.new_ones(num_users, 1).float(), count[:, None].float())


def exponents(sizes: list[dict[str, Any]]) -> dict[str, float]:
    """Slope of the logarithm of each figure against that of the rows, over the larger sizes.

    Times are those of the clock, and on a CPU also those of its cores, which others cannot stretch.
    """
    found, last = {}, sizes[-3:]
    if len(last) < 2:
        return found
    x = torch.tensor([size["rows"] for size in last]).double().log()
    names = {name: [s["seconds"].get(name, 0) for s in last] for name in last[0]["seconds"]}
    names["seconds"] = [sum(s["seconds"][n] for n in COUNTED if n in s["seconds"]) for s in last]
    for name in COUNTED if last[0]["peak_bytes"]["device"] == 0 else ():
        names[f"{name}, processor"] = [s["processor seconds"][name] for s in last]
    names["host bytes"] = [s["peak_bytes"]["host"] for s in last]
    names["device bytes"] = [s["peak_bytes"]["device"] for s in last]
    for name, values in names.items():
        y = torch.tensor(values).double()
        if (y > 0).all():
            centred = x - x.mean()
            found[name] = float((centred * y.log()).sum() / centred.square().sum())
    return found


COUNTED = ("read", "split", "learn block 0", "learn block 1", "measure")


def kept(path: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Sizes that a run that was cut off has measured with the same options and versions."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = all(stored.get(name) == result[name] for name in result if name not in MACHINE)
    sizes: list[dict[str, Any]] = stored["sizes"] if same else []
    return sizes


def main() -> None:
    """Run every size in a process of its own, fit, plot and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 2e5, 5e5, 1e6, 2e6, 5e6])
    parser.add_argument("--steps", type=int, default=16, help="steps of an epoch, at every size")
    parser.add_argument("--asked", type=int, default=1000, help="users wherever they are sampled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a Parquet file: one size
    asked = parser.parse_args()
    for message in (
        "Sparse CSR tensor support is in beta",
        "Sparse invariant checks are implicitly",
    ):
        warnings.filterwarnings("ignore", message)
    if asked.one:
        asked.to.write_text(json.dumps(measure(asked.one, asked.steps, asked.asked)))
        return
    result: dict[str, Any] = {
        "steps": asked.steps,
        "asked": asked.asked,
        "hardware": hardware(),
        "versions": versions(),
        "environment": {name: os.environ[name] for name in MEMORY if name in os.environ},
        "sizes": [],
    }
    asked.to.parent.mkdir(parents=True, exist_ok=True)
    result["sizes"] = kept(asked.to, result)
    done = {size["rows"] for size in result["sizes"]}
    for rows in sorted({int(rows) for rows in asked.rows} - done):
        with tempfile.TemporaryDirectory() as folder:
            source, found = Path(folder) / "rows.parquet", Path(folder) / "found.json"
            print(f"{rows} rows", flush=True)
            write_rows(rows, source, asked.seed)
            options = ["--steps", str(asked.steps), "--asked", str(asked.asked)]
            command = [sys.executable, __file__, "--one", str(source), "--to", str(found), *options]
            subprocess.run(command, check=True)
            result["sizes"].append(json.loads(found.read_text()))
            result["sizes"].sort(key=lambda size: size["rows"])
        # After every size: a run that is cut off keeps what it has.
        result["exponents"] = exponents(result["sizes"])
        asked.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in result["exponents"].items():
        print(f"{name:30s} grows as rows ** {value:.2f}")


if __name__ == "__main__":
    main()
