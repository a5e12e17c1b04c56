"""The files of a run, each written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch_geometric
from torch import Tensor

from ccdgraph import __version__, checkpoint
from ccdgraph.config import load, to_dict, to_toml
from ccdgraph.data import Stream, UserItems
from ccdgraph.evaluate import Evaluation
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import Scorer, recommend_lists
from ccdgraph.run.plain import difference, plain_dict
from ccdgraph.run.record import Row, RunResult, summary

if TYPE_CHECKING:
    import pyarrow as pa

CONFIG, ABOUT, METRICS = "config.toml", "run.json", "metrics.parquet"
CHECKPOINT, BASE, SERVED = "checkpoint", "base", "served"
STATES = "states"  # of the learner after every block, where the configuration keeps them
LISTED = 200  # items stored for a user of a scorer that has no embeddings


def open_folder(folder: Path, config: Any, fingerprint: str, *, resume: bool) -> None:
    """Makes the folder of a new run, or checks that ``config`` goes on with the one there.

    Raises:
        ValueError: the folder is in use without ``resume``, or holds another run; the message names
            the first key that differs.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        checkpoint.atomic_write_text(folder / CONFIG, to_toml(config))
        return
    if not resume:
        raise ValueError(f"'{folder}' is not empty; add --resume or name another folder")
    if not (folder / CONFIG).exists():
        raise ValueError(f"'{folder}' holds no run, '{CONFIG}' is missing; name another folder")
    begun = load(type(config), folder / CONFIG)
    differs = difference(plain_dict(begun), plain_dict(config))
    if differs:
        raise ValueError(
            f"'{folder}' was begun with {differs}; resume with the same configuration or "
            "name another folder"
        )
    about = read_about(folder)
    data = about["data"]["fingerprint"] if about else fingerprint
    if data != fingerprint:
        raise ValueError(
            f"'{folder}' was begun on other data: 'fingerprint' is {data[:12]}, not "
            f"{fingerprint[:12]}; name another folder"
        )


def read_about(folder: Path) -> dict[str, Any]:
    """``run.json``, empty when there is none yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / ABOUT
    if not path.exists():
        return {}
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        str(about["data"]["fingerprint"]), dict(about["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); name another folder") from error
    return about


def write_about(
    folder: Path, result: RunResult, stream: Stream, fingerprint: str, more: Mapping[str, Any]
) -> None:
    """Writes ``run.json``: what was run, on what, with what, and the headline results."""
    about = {
        "data": {
            "name": stream.name,
            "fingerprint": fingerprint,
            "blocks": len(stream),
            "users": stream[-1].num_users,
            "items": stream[-1].num_items,
        },
        "protocol": stream.protocol,
        "mask": result.config.mask,
        "ties": "score descending, id ascending",
        "seed": result.config.seed,
        "versions": versions(),
        "hardware": hardware(),
        **more,
        "strategy": result.config.strategy,
        "parameters": dict(result.parameters),
        "state_bytes": dict(result.state_bytes),
        "signatures": [signature._asdict() for signature in result.signatures],
        "seconds": dict(result.seconds),
        "metric": result.config.evaluate.headline,
        "results": summary(result),
        "config": to_dict(result.config),
    }
    checkpoint.atomic_write_text(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "ccdgraph": __version__,
    }


def hardware() -> str:
    """The class of the machine: accelerator if any, architecture, cores and threads."""
    cores = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; {cores}"
    return cores


def peak_memory() -> dict[str, int]:
    """Most bytes held so far by this process, on the host and on the accelerator."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Writes ``metrics.parquet``, one row a mean."""
    import pyarrow as pa

    columns = {name: [row[place] for row in rows] for place, name in enumerate(Row._fields)}
    write_parquet(folder / METRICS, pa.table(columns))


def read_rows(folder: Path, *, until: int) -> list[Row]:
    """The rows of ``metrics.parquet`` on what was learnt up to block ``until``.

    Raises:
        ValueError: the file is damaged, or lacks a block before ``until``.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / METRICS
    try:
        stored = (
            parquet.read_table(path, page_checksum_verification=True).to_pylist()
            if path.exists()
            else []
        )
        rows = [row for row in (Row(**row) for row in stored) if row.learnt <= until]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged; name another folder to start again") from error
    missing = set(range(until)) - {row.learnt for row in rows}
    if missing:
        raise ValueError(
            f"'{path}' lacks block {min(missing)}, which is learnt already; name another folder "
            "to start again"
        )
    return rows


def write_users(path: Path, measured: Iterable[tuple[str, int, Evaluation]]) -> None:
    """Writes the metrics of every user: scorer, tested, user, and a column a metric."""
    import pyarrow as pa

    tables = []
    for scorer, tested, evaluation in measured:
        length = len(evaluation)
        columns = {"user": evaluation.user, **evaluation.metrics}
        tables.append(
            pa.table(
                {"scorer": [scorer] * length, "tested": [tested] * length}
                | {name: column.cpu().numpy() for name, column in columns.items()}
            )
        )
    write_parquet(path, pa.concat_tables(tables))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a table whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, write_page_checksum=True)
    checkpoint.atomic_write_bytes(path, sink.getvalue().to_pybytes())


def write_served(folder: Path, served: Scorer, stream: Stream, learnt: int) -> None:
    """Stores what recommending needs: embeddings or lists, what users have, external ids.

    A scorer whose scores are no inner products is stored as the lists of every user.
    """
    blocks = [stream[j] for j in range(learnt + 1)]
    parts = [block.train for block in blocks]
    if stream.protocol == "within":  # under "next" these rows lie in a block yet to come
        parts += [part for block in blocks for part in (block.valid, block.test)]
    seen = UserItems.from_interactions(parts, served.num_users, served.num_items)
    tensors: dict[str, Tensor] = {"seen_indptr": seen.indptr, "seen_item": seen.item}
    if isinstance(served, Embeddings) and served.network is None:
        tensors |= {"user": served.user, "item": served.item}
    else:
        everyone = torch.arange(served.num_users, device=seen.item.device)
        depth = min(LISTED, served.num_items)
        score, item = recommend_lists(served, everyone, depth, seen)
        tensors |= {"list_score": score, "list_item": item}
    meta = {
        "learnt": learnt,
        "users": stream.users.tolist()[: served.num_users],
        "items": stream.items.tolist()[: served.num_items],
    }
    checkpoint.save(folder / SERVED, tensors, meta)
