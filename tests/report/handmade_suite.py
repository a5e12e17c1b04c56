"""A suite written by hand: two strategies of two seeds, one of them with a teacher, one failure."""

import json
from pathlib import Path

from ccdgraph.bench import Cell, Comparison, Outcome
from ccdgraph.bench.results import write_results
from ccdgraph.config import to_dict
from ccdgraph.continual import CCDConfig
from ccdgraph.run import EvaluateConfig, Row, RunConfig, RunResult
from ccdgraph.run.record import summary

BLOCKS = 3
PLACE = ("planted", "within", "strict", "own")
SIGN = {"kind": "falling", "scorer": "student", "block": 2, "message": "it falls <b>& falls</b>"}


def accuracy(strategy: str, scorer: str, seed: int, learnt: int, tested: int) -> float:
    """Any number that tells all its arguments apart."""
    lead = {"CCD": 0.2, "FineTune": 0.1}[strategy] + {"teacher": 0.05}.get(scorer, 0.0)
    return lead + 0.01 * seed + 0.003 * tested - 0.0007 * learnt


def _config(strategy: str, seed: int) -> RunConfig:
    evaluate = EvaluateConfig(ks=(5,))
    if strategy == "CCD":
        return RunConfig(seed=seed, ccd=CCDConfig(), evaluate=evaluate)
    return RunConfig(seed=seed, strategy=strategy, evaluate=evaluate)


def _rows(strategy: str, seed: int) -> tuple[Row, ...]:
    scorers = ("student", "teacher") if strategy == "CCD" else ("model",)
    return tuple(
        Row(scorer, k, j, "test", group, "recall@5", accuracy(strategy, scorer, seed, k, j), 9)
        for scorer in scorers
        for k in range(BLOCKS)
        for j in range(k + 1)
        for group in ("all", *(("new_users", "new_items") if j else ()))
    )


def _outcome(strategy: str, seed: int, protocol: str) -> Outcome:
    config = _config(strategy, seed)
    cell = Cell("planted", protocol, "strict", "own", strategy, seed, config)
    if (strategy, seed) == ("FineTune", 1):
        return Outcome(cell, "failed", "ValueError: no luck", {}, (), {})
    ccd = strategy == "CCD"
    rows = _rows(strategy, seed)
    unit = 1.0 if ccd else 0.01
    stages = ("teacher 1", "evaluation")
    seconds = {f"{k}/{stage}": unit * (1 + k) for k in range(BLOCKS) for stage in stages}
    parameters = {"student": 100, "teacher": 4000} if ccd else {"model": 100}
    sizes = {str(k): 1000 * (k + 1) for k in range(BLOCKS)}
    result = RunResult(config, BLOCKS, rows, seconds, parameters, sizes)
    about = {
        "complete": True,
        "data": {
            **{"name": "planted", "fingerprint": "f00", "blocks": BLOCKS},
            **{"users": 50, "items": 40},
        },
        **{"protocol": protocol, "mask": "strict", "seed": seed, "metric": "recall@5"},
        **{"ties": "score descending, id ascending", "strategy": strategy, "device": "cpu"},
        **{"hardware": "a machine", "versions": {"torch": "2"}, "peak_memory": {"host": 5e8}},
        **{"served": "student" if ccd else "model", "signatures": [SIGN] if ccd else []},
        **{"parameters": parameters, "state_bytes": sizes, "seconds": seconds},
        **{"results": summary(result), "config": to_dict(config)},
    }
    return Outcome(cell, "finished", "", about, rows, {"0/teacher 0": 4.0} if ccd else {})


def write_suite(folder: Path, protocol: str = "within") -> list[Outcome]:
    """Writes what ``ccdgraph bench`` leaves behind."""
    outcomes = [_outcome(name, seed, protocol) for name in ("CCD", "FineTune") for seed in (0, 1)]
    for outcome in outcomes:
        if outcome.status == "finished":
            place = folder / "cells" / outcome.cell.key
            place.mkdir(parents=True)
            (place / "run.json").write_text(json.dumps(outcome.about))
    place = ("planted", protocol, "strict", "own")
    test = Comparison(place, "CCD", "FineTune", "LA", 0.1234, 9, 1, 0.01, 0.02)
    write_results(folder, outcomes, [test])
    (folder / "suite.json").write_text('{"name": "by hand"}')
    return outcomes
