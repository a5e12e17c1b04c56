r"""The same budget of tuning for every strategy of a suite, on validation rows alone.

    python benchmarks/tune.py SUITE.toml --to runs/tuning --jobs 2 \
        --write TUNED.toml --results TUNING.json

Every strategy gets ``--trials`` settings: those of the suite, then random ones of its space
(``parts/tuning_spaces.py``); its variant ``block`` (each block's own graph) gets as many of its
own. A trial learns the first stream of the suite with seeds that the suite does not report, and
counts by the harmonic mean of LA and RA of Recall@20 on validation rows after the last block (LA
under protocol ``next``); test rows are never read. The best settings go into a suite of their own.
Trials run in ``--jobs`` processes; stopped and called again, it goes on with what is missing, and
what ``--limit`` seconds left out is left out of every strategy alike. ``--only`` tries some
strategies now; the tuned suite needs a trial of each.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import shlex
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from parts.tuning_spaces import Trial, planned, targets, written

from ccdgraph import checkpoint
from ccdgraph.bench import Cell, StrategyEntry, SuiteConfig, cells, load_suite
from ccdgraph.bench.cell import perform, tasks
from ccdgraph.bench.suite import Learner
from ccdgraph.checkpoint import atomic_write_text
from ccdgraph.config import to_toml
from ccdgraph.continual import Strategy
from ccdgraph.data import Stream
from ccdgraph.evaluate import AccuracyMatrix, evaluate_block
from ccdgraph.run import folder as files
from ccdgraph.run.learner import build, pick_device
from ccdgraph.run.plain import overlay
from ccdgraph.run.source import open_stream


def resolved(suite: SuiteConfig, learner: Learner, over: dict[str, Any], seed: int) -> Cell:
    """The cell of a strategy with other settings, on the first stream of the suite."""
    settings = overlay(learner.settings, over)
    entry = StrategyEntry(learner.strategy, settings, {}, learner.backbone_key)
    one = replace(suite, strategies={learner.name: entry}, shared={}, reference=None, seeds=(seed,))
    return cells(one)[0]


def give_base(learner: Strategy, cell: Cell, stream: Stream, folder: Path) -> None:
    """Give ``learner`` base models, which the first trial that needs them trains for all."""
    task = tasks([cell], folder)[0]
    task.folder.mkdir(parents=True, exist_ok=True)
    with (task.folder.parent / f"{task.folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (task.done or perform(task)):
            raise SystemExit(f"the base models failed; see '{task.error}'")
    learner.take_base(checkpoint.load(task.folder / files.BASE)[0], stream.blocks)


def validated(cell: Cell, stream: Stream, folder: Path) -> dict[str, float]:
    """LA, RA and H of what is served on validation rows; base models lie in ``folder``."""
    config = cell.config
    learner = build(config.strategy, config.learner, config.seed)
    if learner.BASE_NEEDS:
        give_base(learner, cell, stream, folder)
    matrix, within = AccuracyMatrix.empty(len(stream)), stream.protocol == "within"
    last = max(block.index for block in stream if len(block.valid))
    for block in stream.blocks[: last + 1]:
        scorer = learner.update(block)
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


_HERE: dict[str, Any] = {}  # of a worker process: the suite and its stream


def enter(suite: SuiteConfig, number: Any) -> None:
    """Open the stream once in a worker, on a device by turns."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    if torch.cuda.is_available():
        with number.get_lock():
            torch.cuda.set_device(number.value % torch.cuda.device_count())
            number.value += 1
    data = cells(suite)[0].config.data
    _HERE.update(suite=suite, stream=open_stream(data).to(pick_device(suite.device)))


def run(trial: Trial, seeds: Sequence[int]) -> str:
    """Learn the stream once for each seed, and write what validation says."""
    started, suite, values = time.perf_counter(), _HERE["suite"], []
    try:
        for seed in seeds:
            cell = resolved(suite, trial.learner, trial.over, seed)
            values.append(validated(cell, _HERE["stream"], trial.path.parent))
        means = {key: statistics.fmean(v[key] for v in values) for key in values[0]}
    except FloatingPointError as error:  # it diverged: one trial of the budget
        means = {"diverged": str(error)}
    place = f"{files.hardware()}; torch {torch.__version__}"
    seconds = time.perf_counter() - started
    found = {"settings": trial.over, "valid": means, "seconds": seconds, "hardware": place}
    atomic_write_text(trial.path, json.dumps(found, indent=1) + "\n")
    return f"{trial.learner.name} {trial.place}: {means} {trial.over}"


def search(suite: SuiteConfig, trials: Sequence[Trial], options: argparse.Namespace) -> None:
    """Every trial that has not run yet, until the time is over."""
    context = multiprocessing.get_context("spawn")
    wanted = [t for t in trials if not options.only or t.learner.name in options.only]
    left, end = [t for t in wanted if t.outcome() is None], time.perf_counter() + options.limit
    given = (suite, context.Value("i", 0))
    with ProcessPoolExecutor(options.jobs, context, initializer=enter, initargs=given) as pool:
        running: set[Future[str]] = set()
        while left or running:
            while left and len(running) < options.jobs and time.perf_counter() < end:
                running.add(pool.submit(run, left.pop(0), options.seeds))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                print(future.result(), flush=True)


def quality(trial: dict[str, Any]) -> float:
    """What a trial counts by."""
    return float(trial["valid"].get("H", trial["valid"].get("LA", -1.0)))


def chosen(trials: Sequence[Trial], uneven: bool = False) -> dict[str, Any]:
    """The best trial of every strategy among as many for each, beside the suite's own settings.

    As many means: on the same graph; a space that is smaller than the budget is gone through.
    ``uneven`` takes whatever ran.
    """
    ran: dict[str, list[dict[str, Any]]] = {}
    whole = Counter(trial.learner.name for trial in trials)
    for trial in sorted(trials, key=lambda trial: trial.place):
        outcome = trial.outcome()
        tried = ran.setdefault(trial.learner.name, [])
        if outcome is not None and (uneven or trial.place == len(tried)):
            tried.append(outcome)
    short = {name: len(ran.get(name, [])) for name in whole if len(ran.get(name, [])) < whole[name]}
    found = {}
    for name in whole:
        graph = name.partition("/")[2]
        budget = min((n for k, n in short.items() if k.partition("/")[2] == graph), default=None)
        tried = ran.get(name, [])[: None if uneven else budget]
        if not tried:
            raise SystemExit(f"'{name}' or another strategy has no trial yet; run them first")
        best = max(tried, key=quality)
        found[name] = {
            "trials": len(tried),
            "seconds": sum(trial["seconds"] for trial in tried),
            "before": quality(tried[0]),
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
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="of the suite")
    parser.add_argument("--only", action="append", metavar="NAME", help="strategies to try now")
    parser.add_argument("--plain", action="store_true", help="leave the variants out")
    parser.add_argument("--uneven", action="store_true", help="choose among all trials that ran")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds to begin in")
    parser.add_argument("--write", type=Path, help="the tuned suite")
    parser.add_argument("--results", type=Path, help="the chosen settings as JSON")
    options = parser.parse_args()
    suite = load_suite(options.suite, options.set or [])
    if options.plain:
        alone = {name: replace(one, variants={}) for name, one in suite.strategies.items()}
        suite = replace(suite, strategies=alone)
    if both := set(options.seeds) & set(suite.seeds):
        parser.error(f"'--seeds' {sorted(both)} are reported by the suite; tune with others")
    if unknown := set(options.only or ()) - set(targets(suite)):
        parser.error(f"'--only' names {sorted(unknown)[0]!r}, expected some of {[*targets(suite)]}")
    trials = planned(suite, options.to, options.trials)
    search(suite, trials, options)
    if not (options.write or options.results):
        return
    found, first = chosen(trials, options.uneven), cells(suite)[0]
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "metric": f"recall@20 on validation rows, protocol {first.protocol}, mask {first.mask}",
        "seeds": len(options.seeds),
        "hardware": sorted({o["hardware"] for t in trials if (o := t.outcome()) is not None}),
    }
    if options.results:
        whole = {"about": about, "strategies": found}
        atomic_write_text(options.results, json.dumps(whole, indent=1) + "\n")
    if options.write:
        note = f"# Written by {about['command']}\n"
        atomic_write_text(options.write, note + to_toml(written(suite, found)))


if __name__ == "__main__":
    main()
