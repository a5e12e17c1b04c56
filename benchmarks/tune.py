r"""The same budget of tuning for every strategy of a suite, on validation rows alone.

    python benchmarks/tune.py benchmarks/planted.toml --to runs/tuning \
        --write benchmarks/planted_tuned.toml --results benchmarks/results/planted_tuning.json

Every strategy gets ``--trials`` settings: those of the suite, then random ones of its space below,
drawn over the suite's. A trial learns the first stream of the suite with seeds that the suite does
not report, and counts by the harmonic mean of LA and RA of Recall@20 on validation rows after the
last block (LA under protocol ``next``); test rows are never read. The best setting of each strategy
goes into a suite of its own. Stopped and called again, it goes on after the last trial; several
processes may share the work by ``--only``, and a last call without it writes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ccdgraph.bench import StrategyEntry, SuiteConfig, cells, load_suite
from ccdgraph.bench.suite import overlay
from ccdgraph.checkpoint import atomic_write_text
from ccdgraph.config import rng, to_toml
from ccdgraph.continual import CCD
from ccdgraph.data import Stream
from ccdgraph.evaluate import AccuracyMatrix, evaluate_block
from ccdgraph.nn import Backbone
from ccdgraph.run import RunConfig
from ccdgraph.run.folder import hardware, versions
from ccdgraph.run.learner import build, pick_device
from ccdgraph.run.source import open_stream

Space = dict[str, list[Any]]

STEPS: Space = {
    "fit.lr": [1e-3, 3e-3, 1e-2, 3e-2],
    "fit.epochs": [5, 10, 20],
    "batch_size": [256, 512, 2048],
}
OWN: dict[str, Space] = {
    "FineTune": STEPS,
    "ExperienceReplay": {**STEPS, "ratio": [0.1, 0.2, 0.5, 1.0, 2.0]},
    "SPMF": {**STEPS, "ratio": [0.5, 1.0, 2.0]},
    "ADER": {**STEPS, "weight": [0.2, 0.8, 2.0, 5.0]},
    "GraphSAIL": {
        **STEPS,
        "weight_self": [1.0, 10.0, 100.0],
        "weight_local": [10.0, 100.0, 1e3],
        "weight_global": [1.0, 10.0, 100.0],
    },
    "Contrastive": {**STEPS, "weight": [1.0, 10.0, 100.0, 1e3], "temperature": [0.5, 1.0, 5.0]},
    "PISA": {**STEPS, "weight": [0.1, 0.5, 2.0, 10.0], "share": [0.2, 0.6, 1.0]},
    "ReLoop2": {**STEPS, "share": [0.1, 0.3, 1.0], "temperature": [0.1, 0.5]},
    "FIRE": {
        "rate": [0.0, 0.1, 0.5],
        "rank": [32, 64, 128],
        "low_pass": [0.2, 1.0, 5.0],
        "similar_users": [0.0, 0.2, 1.0],
        "similar_items": [0.0, 0.2, 1.0],
    },
    "CCD": {
        "generation.fit.lr": [5e-3, 1e-2, 2e-2],
        "generation.start": ["fresh", "previous"],
        "generation.weight_user": [0.01, 0.03, 0.1],
        **{f"update.{key}": values for key, values in STEPS.items()},
        "update.replay": [[{"weight": weight}] for weight in (0.0, 0.05, 0.5)],
        **{f"teacher.{key}": values for key, values in STEPS.items()},
        "teacher.distill_weight": [0.0, 0.01],
        "teacher.replay": [[{"weight": weight, "anneal": 5.0}] for weight in (0.0, 0.05, 0.5)],
    },
}
# Trained from nothing at every block, by the settings of the base block.
FRESH: Space = {"base.fit.lr": [2e-3, 5e-3, 1e-2, 2e-2], "base.batch_size": [256, 1024, 2048]}


def space(name: str, entry: StrategyEntry) -> Space:
    """What is tried of an entry of a suite."""
    strategy = entry.strategy or name
    if strategy == "FullBatch":
        return STEPS if entry.settings.get("start") == "warm" else FRESH
    if strategy not in OWN:
        raise SystemExit(f"'{strategy}' has no space; add one to OWN in {__file__}")
    return OWN[strategy]


def settings(name: str, entry: StrategyEntry, trials: int) -> list[dict[str, Any]]:
    """What each trial lays over the settings of an entry: nothing, then distinct random values.

    A space that is smaller than the budget is gone through once.
    """
    found, tried = [dict[str, Any]()], [dict(entry.settings)]
    options, draw = space(name, entry), rng("tune", name)
    for _ in range(100 * trials):
        if len(found) == trials:
            break
        chosen: dict[str, Any] = {}
        for key, values in options.items():
            place = int(torch.randint(len(values), (), generator=draw))
            chosen = overlay(chosen, nested(key, values[place]))
        if (whole := overlay(entry.settings, chosen)) not in tried:
            found.append(chosen)
            tried.append(whole)
    return found


def nested(key: str, value: Any) -> dict[str, Any]:
    """A table with one entry, by its dotted key."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def resolved(suite: SuiteConfig, name: str, over: dict[str, Any], seed: int) -> RunConfig:
    """The run of an entry with other settings, on the first stream of the suite."""
    entry = suite.strategies[name]
    entry = replace(entry, settings=overlay(entry.settings, over), variants={})
    one = replace(suite, strategies={name: entry}, seeds=(seed,), reference=None)
    return cells(one)[0].config


Teachers = dict[str, list[Backbone]]


def validated(config: RunConfig, stream: Stream, teachers: Teachers) -> dict[str, float]:
    """LA, RA and H of what is served on validation rows; base teachers are trained once a seed."""
    learner, known = build(config.strategy, config.learner, config.seed), ""
    if isinstance(learner, CCD):
        known = json.dumps([config.seed, repr(learner.config.teachers), repr(learner.config.base)])
        learner.teachers = list(teachers.get(known, []))
    matrix, within = AccuracyMatrix.empty(len(stream)), stream.protocol == "within"
    last = max(block.index for block in stream if len(block.valid))
    for block in stream.blocks[: last + 1]:
        scorer = learner.update(block)
        if isinstance(learner, CCD) and block.index == 0:
            teachers[known] = list(learner.teachers)
        tested = range(block.index + 1) if within and block.index == last else [block.index]
        for j in tested:
            found = evaluate_block(
                scorer, stream, j, block.index, mask=config.mask, split="valid", ks=(20,)
            )
            matrix = matrix.set(block.index, j, found["all"].mean()["recall@20"])
    if not within:
        return {"LA": matrix.learning_average(last)}
    return {
        "LA": matrix.learning_average(last),
        "RA": matrix.retained_average(last),
        "H": matrix.h_mean(last),
    }


def search(suite: SuiteConfig, name: str, stream: Stream, options: argparse.Namespace) -> None:
    """Every trial of one strategy that its journal does not hold yet."""
    path, teachers = options.to / f"{name}.json", Teachers()
    done = json.loads(path.read_text()) if path.exists() else []
    planned = settings(name, suite.strategies[name], options.trials)
    for place, over in enumerate(planned):
        if place < len(done):
            if done[place]["settings"] != over:
                raise SystemExit(f"'{path}' holds other trials; name another folder")
            continue
        started, values = time.perf_counter(), []
        try:
            for seed in options.seeds:
                values.append(validated(resolved(suite, name, over, seed), stream, teachers))
            means = {key: statistics.fmean(v[key] for v in values) for key in values[0]}
        except FloatingPointError as error:  # it diverged: one trial of the budget
            means = {"diverged": str(error)}
        seconds = time.perf_counter() - started
        done.append({"settings": over, "valid": means, "seconds": seconds})
        atomic_write_text(path, json.dumps(done, indent=1) + "\n")
        print(f"{name} {place + 1}/{len(planned)}: {means} {over}", flush=True)


def quality(trial: dict[str, Any]) -> float:
    """What a trial counts by."""
    valid = trial["valid"]
    return float(valid.get("H", valid.get("LA", -1.0)))


def chosen(suite: SuiteConfig, options: argparse.Namespace) -> dict[str, Any]:
    """The best trial of every strategy, beside that of the suite's own settings."""
    found = {}
    for name, entry in suite.strategies.items():
        path = options.to / f"{name}.json"
        trials = json.loads(path.read_text()) if path.exists() else []
        planned = len(settings(name, entry, options.trials))
        if len(trials) < planned:
            raise SystemExit(f"'{name}' has {len(trials)} of {planned} trials; run them first")
        best = max(trials[:planned], key=quality)
        found[name] = {
            "trials": planned,
            "seconds": sum(trial["seconds"] for trial in trials[:planned]),
            "before": quality(trials[0]),
            "tuned": quality(best),
            "chosen": json.dumps(best["settings"]),
        }
    return found


def main() -> None:
    """Run, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suite", type=Path)
    parser.add_argument("--to", type=Path, required=True, help="folder of the trials")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100])
    parser.add_argument("--only", nargs="+", help="strategies of this process")
    parser.add_argument("--write", type=Path, help="the tuned suite")
    parser.add_argument("--results", type=Path, help="the chosen settings as JSON")
    options = parser.parse_args()
    suite = load_suite(options.suite)
    if both := set(options.seeds) & set(suite.seeds):
        parser.error(f"'--seeds' {sorted(both)} are reported by the suite; tune with others")
    device = pick_device(suite.device)
    first = cells(suite)[0].config
    stream = open_stream(first.data).to(device)
    for name in options.only or suite.strategies:
        search(suite, name, stream, options)
    if options.only:
        return
    found = chosen(suite, options)
    about = {
        "command": f"python benchmarks/tune.py benchmarks/{options.suite.name}",
        "metric": f"recall@20 on validation rows, protocol {stream.protocol}, mask {first.mask}",
        "seeds": len(options.seeds),
        "hardware": hardware(),
        "versions": versions(),
    }
    if options.results:
        text = json.dumps({"about": about, "strategies": found}, indent=1) + "\n"
        atomic_write_text(options.results, text)
    if options.write:
        tuned = {
            name: replace(e, settings=overlay(e.settings, json.loads(found[name]["chosen"])))
            for name, e in suite.strategies.items()
        }
        out = replace(suite, name="", strategies=tuned)
        note = f"# Written by {about['command']}: {options.trials} trials for each strategy.\n"
        atomic_write_text(options.write, note + to_toml(out))


if __name__ == "__main__":
    main()
