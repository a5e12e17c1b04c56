"""Planted drift: how late it is noticed, how often nothing is noticed as something, what it saves.

From one block on, a share of the users turns to other items: their rows go through a permutation of
the items known by then. Detectors watch streams with and without such a drift. A delay counts
blocks; an alarm at a block without drift, before the planted one or on a stream without any, is
false. Then CCD, whose teachers learn every third block, learns the streams with drift with and
without actions, and H-mean is compared.

    python benchmarks/drift.py --to benchmarks/results/drift.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ccdgraph.config import rng
from ccdgraph.continual import AdaptiveCCD, AdaptiveConfig, CCDConfig
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.continual.drift import Action, Detector, Event, events_at
from ccdgraph.data import Interactions, Stream, synthetic_stream
from ccdgraph.evaluate import AccuracyMatrix, evaluate_block
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import FitConfig

SIGNALS = ("miss", "loss", "popularity", "disagreement", "new")
FIRST = 4  # an interval needs three earlier blocks
DETECTORS = {
    **{f"{signal}/interval": Detector(signal) for signal in SIGNALS},
    **{
        f"{signal}/{method}": Detector(signal, method, alpha=0.002, threshold=1.0)
        for signal in ("miss", "loss")
        for method in ("adwin", "page-hinkley")
    },
}
REACTIONS = {
    "none": (),
    "update-teacher": (Action("update-teacher"),),
    "raise-plasticity": (Action("raise-plasticity"),),
    "shrink-replay": (Action("shrink-replay", factor=10.0),),
    "all": (
        *(Action("update-teacher"), Action("raise-plasticity")),
        Action("shrink-replay", factor=10.0),
    ),
}


def turned(stream: Stream, at: int, share: float, seed: int) -> Stream:
    """``stream`` whose users, a ``share`` of them, want other items from block ``at`` on."""
    known, draw = stream[at - 1].num_items, rng(seed, "drift")
    other = torch.randperm(known, generator=draw)
    turns = torch.rand(stream[-1].num_users, generator=draw) < share

    def turn(rows: Interactions) -> Interactions:
        moved = turns[rows.user] & (rows.item < known)
        return replace(
            rows, item=torch.where(moved, other[rows.item.clamp(max=known - 1)], rows.item)
        )

    blocks = [
        block
        if block.index < at
        else replace(block, train=turn(block.train), valid=turn(block.valid), test=turn(block.test))
        for block in stream
    ]
    return replace(stream, blocks=tuple(blocks))


def ccd(epochs: int) -> CCDConfig:
    """A small ensemble and student."""
    fit = FitConfig(epochs=epochs, lr=1e-2)
    replay = ReplayConfig(depth=50)
    return CCDConfig(
        student=BackboneConfig("MF", 8),
        teachers=(BackboneConfig("MF", 32), BackboneConfig("LightGCN", 32)),
        base=BaseConfig(batch_size=1024, negatives=2, fit=replace(fit, epochs=3 * epochs)),
        generation=GenerationConfig(
            list_length=20, rest_items=200, rest_users=200, start="previous", fit=fit
        ),
        update=StudentConfig(replay=(replay,), fit=fit),
        teacher=TeacherConfig(replay=(replace(replay, anneal=5.0),), personal=False, fit=fit),
    )


def learnt(stream: Stream, config: AdaptiveConfig, seed: int) -> tuple[AdaptiveCCD, AccuracyMatrix]:
    """A learner after the stream, and the recall of its student."""
    learner, matrix = AdaptiveCCD(config, seed=seed), AccuracyMatrix.empty(len(stream))
    for block in stream:
        student = learner.update(block)
        for tested in range(block.index + 1):
            found = evaluate_block(student, stream, tested, block.index, ks=(20,))["all"]
            matrix = matrix.set(block.index, tested, found.mean()["recall@20"])
    return learner, matrix


def alarms(series: dict[str, Any], detector: Detector) -> list[int]:
    """Blocks at which a detector raises an alarm."""
    found: list[Event] = []
    for block in range(1, len(series[detector.signal]) + 1):
        seen = {name: values[:block] for name, values in series.items()}
        found += events_at(block, [detector], seen)
    return [event.block for event in found]


def quality(
    drifting: Sequence[dict[str, Any]], calm: Sequence[dict[str, Any]], at: int, detector: Detector
) -> dict[str, Any]:
    """Delays on streams with drift, ``None`` where it is missed, and the share of false alarms."""
    last = len(calm[0]["miss"])
    delays, false, chances = [], 0, 0
    for series in drifting:
        found = alarms(series, detector)
        delays.append(next((block - at for block in found if block >= at), None))
        false += sum(FIRST <= block < at for block in found)
        chances += at - FIRST
    for series in calm:
        false += sum(block >= FIRST for block in alarms(series, detector))
        chances += last - FIRST + 1
    return {"delay": delays, "false alarms": false / chances, "blocks without drift": chances}


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Detection for each share of users that turns, then H-mean for each reaction."""
    watch = tuple(Detector(signal) for signal in SIGNALS)
    settings = AdaptiveConfig(ccd(options.epochs), watch, (), options.teacher_every)
    streams = [
        synthetic_stream(options.users, options.items, options.rows, num_blocks=options.blocks,
                         drift=0.0, base=0.3, seed=seed)
        for seed in range(options.seeds)
    ]  # fmt: skip
    calm = [learnt(s, settings, seed)[0].series for seed, s in enumerate(streams)]
    found: dict[str, Any] = {"detection": {}}
    for share in options.shares:
        moved = [turned(s, options.at, share, seed) for seed, s in enumerate(streams)]
        series = [learnt(s, settings, seed)[0].series for seed, s in enumerate(moved)]
        found["detection"][str(share)] = {
            name: quality(series, calm, options.at, detector)
            for name, detector in DETECTORS.items()
        }
    best = replace(settings, detectors=(Detector("miss"),))
    found["H"] = {
        name: [
            summary(learnt(s, replace(best, actions=actions), seed)[1], options.at)
            for seed, s in enumerate(moved[: options.react])
        ]
        for name, actions in REACTIONS.items()
    }
    return found


def summary(matrix: AccuracyMatrix, at: int) -> dict[str, float]:
    """LA, RA and H after the drift's block and at the end, without the base block."""
    return {
        f"{name} {when}": getattr(matrix, method)(block, base=False)
        for when, block in (("at the drift", at), ("at the end", len(matrix.values) - 1))
        for name, method in (
            *(("LA", "learning_average"), ("RA", "retained_average")),
            ("H", "h_mean"),
        )
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = {
        **{"seeds": 10, "react": 5, "users": 400, "items": 300, "rows": 24_000, "blocks": 9},
        **{"at": 7, "epochs": 4, "teacher_every": 3},
    }
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if not FIRST <= options.at <= options.blocks:
        parser.error(f"'--at' is {options.at}; expected {FIRST} to {options.blocks}")
    result = {"about": {**vars(options), "to": None}, **experiment(options)}
    for share, by in result["detection"].items():
        for name, figures in by.items():
            late = sum(delay is None or delay > 1 for delay in figures["delay"])
            print(f"{share:<6}{name:<24} later than a block: {late} of {len(figures['delay'])}, "
                  f"false alarms {figures['false alarms']:.1%}")  # fmt: skip
    for name, runs in result["H"].items():
        means = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        print(name, {key: round(value, 4) for key, value in means.items()})
    if options.to:
        options.to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
