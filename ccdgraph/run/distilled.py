"""What a static distillation has measured, in memory and as files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccdgraph import checkpoint
from ccdgraph.config import to_dict
from ccdgraph.data import Stream
from ccdgraph.run import folder as files
from ccdgraph.run.distill_config import DistillConfig
from ccdgraph.run.lesson import Room


@dataclass(frozen=True)
class Distilled:
    """What a distillation has measured.

    Args:
        config: the configuration.
        notes: by model: ``"teacher 0"``, ..., ``"teacher"`` (the ensemble, its metrics alone),
            ``"reference"``, ``"student"``.
        agreement: of student and teacher: overlap, Kendall's tau, linear CKA of either side.
        warnings: what looks wrong, a sentence each.
        labels: of a store: the teacher's ``version``, and ``coverage``, the share of the training
            users who have labels.
    """

    config: DistillConfig
    notes: dict[str, dict[str, Any]]
    agreement: dict[str, float]
    warnings: tuple[str, ...]
    labels: dict[str, Any] = field(default_factory=dict)

    def value(self, model: str, metric: str | None = None, *, split: str = "test") -> float:
        """A mean over users; by default of the metric that models are compared by."""
        name = metric or self.config.measure.headline
        return float(self.notes[model]["metrics"][split][name])


def write_results(folder: Path, result: Distilled, stream: Stream, room: Room) -> None:
    """Write ``metrics.parquet``, a row a mean or a cost of training, and ``run.json``."""
    import pyarrow as pa

    rows = [
        {"model": model, "split": split, "metric": metric, "value": float(value)}
        for model, notes in result.notes.items()
        for split, values in _measured(notes)
        for metric, value in values.items()
    ]
    files.write_parquet(folder / files.METRICS, pa.Table.from_pylist(rows))
    about = {
        "kind": "distillation",
        "complete": True,
        "data": {
            "name": stream.name,
            "fingerprint": room.fingerprint,
            "users": room.block.num_users,
            "items": room.block.num_items,
        },
        "versions": files.versions(),
        "hardware": files.hardware(),
        "device": str(room.graph.device),
        "metric": result.config.measure.headline,
        "seconds": {m: n["seconds_per_epoch"] for m, n in result.notes.items() if "loss" in n},
        "models": result.notes,
        "agreement": result.agreement,
        "warnings": list(result.warnings),
        "labels": result.labels,
        "config": to_dict(result.config),
    }
    checkpoint.atomic_write_text(folder / files.ABOUT, json.dumps(about, indent=1) + "\n")


def _measured(notes: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Metrics by split, and the costs of training."""
    found = list(notes["metrics"].items())
    if "loss" in notes:
        costs = {f"peak_{name}_bytes": size for name, size in notes["peak_memory"].items()}
        found.append(("training", {"seconds_per_epoch": notes["seconds_per_epoch"], **costs}))
    return found
