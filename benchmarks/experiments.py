r"""Experiments 2 to 9: what the parts of CCD do, and how strategies recover from planted drift.

    python benchmarks/experiments.py --to runs/experiments \
        --write benchmarks/results/experiments/planted.json
    python benchmarks/experiments.py --data yelp --path data/yelp_ccd --to runs/experiments_yelp \
        --jobs 8 --write benchmarks/results/experiments/yelp.json

Every part is one suite (``ccdgraph bench``) and goes on where it stopped; ``--only`` names parts.
The first variant of a part is the reference: CCD with replay and LWC-KD at their published weights,
so that what is varied has an effect. The planted stream is learnt on the graph that evolves, Yelp's
blocks each on their own, as in the paper. Base teachers are trained once a seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parts import replay_gap
from parts.drift_world import turned
from parts.experiment_tables import markdown, recovery, row, spread

from ccdgraph.bench import (
    StrategyEntry,
    SuiteConfig,
    cells,
    compare,
    load_suite,
    run_suite,
)
from ccdgraph.checkpoint import atomic_write_text
from ccdgraph.data import read_presplit, synthetic_stream, write_stream
from ccdgraph.run import DataConfig
from ccdgraph.run.folder import hardware, versions
from ccdgraph.run.learner import pick_device
from ccdgraph.run.plain import overlay
from ccdgraph.run.source import open_stream

CONFIGS = Path(__file__).parent / "configs"
AT, SHARE = 4, 0.5  # block of the drift, users that turn


def both(replay: dict[str, Any]) -> dict[str, Any]:
    """A setting of the replay of student and teachers."""
    return {"update": {"replay": [replay]}, "teacher": {"replay": [{"anneal": 5.0, **replay}]}}


def started(init: str) -> dict[str, Any]:
    """How new entities of student and teachers start."""
    return {"update": {"init": init}, "teacher": {"init": init}}


def rates(*pairs: tuple[float, float]) -> dict[str, dict[str, Any]]:
    """What the proxies keep, stability and plasticity; the first pair is the reference's own."""
    kept = {
        f"w_SP {s}, w_PP {p}": {"keep_stability": [s], "keep_plasticity": [p]} for s, p in pairs
    }
    return {**kept, next(iter(kept)): {}}


EXPERIMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "proxies": {
        "both": {},
        "stability only": both({"plasticity": 0}),
        "plasticity only": both({"stability": 0}),
        "none": both({"stability": 0, "plasticity": 0}),
    },
    "ratio": {"1:1": {}, **{f"1:{n}": {"update": {"updates": n}} for n in (2, 5, 10)}},
    "transfer": {
        "two-way": {},
        "proxies alone": {"teacher": {"replay": [{"anneal": 5.0, "student": 0}]}},
        "one-way": {"teacher": {"replay": [{"weight": 0.0}]}},
    },
    "rates": rates(*((sp, pp) for sp in (0.9, 0.5, 1.0) for pp in (0.0, 0.5))),
    "entities": {
        "two-hop": {},
        "two-hop without prominence": started("two-hop-any"),
        "one-hop": started("one-hop"),
        "random": started("random"),
    },
    "into": {"served embeddings": {}, "layer-0 tables": {"generation": {"into": "tables"}}},
}
# There the reference imposes lists on the tables, and two grids are reduced.
ON_YELP: dict[str, dict[str, dict[str, Any]]] = {
    "into": {"layer-0 tables": {}, "served embeddings": {"generation": {"into": "served"}}},
    "ratio": {name: EXPERIMENTS["ratio"][name] for name in ("1:1", "1:5")},
    "rates": rates((0.9, 0.0), (0.9, 0.5), (0.5, 0.0)),
}
PARTS = [*EXPERIMENTS, "drift", "replay"]


def whole(options: argparse.Namespace) -> tuple[SuiteConfig, StrategyEntry]:
    """The suite that an experiment varies, and its CCD with all parts switched on."""
    if options.data == "yelp":
        suite, name, extra = load_suite(CONFIGS / "strategies_suite.toml"), "CCD/block", {}
        suite = replace(suite, data={"yelp": DataConfig(source="presplit", path=options.path)})
    else:
        suite, name = load_suite(CONFIGS / "planted.toml"), "CCD"
        steps = {"batch_size": 512, "fit": {"lr": 1e-2}}
        extra = overlay(both({}), {"update": steps, "teacher": steps})
        extra["teachers"] = suite.strategies["CCD"].settings["teachers"][:2]
    settings = next(one.settings for one in suite.learners() if one.name == name)
    entry = StrategyEntry("CCD", overlay(settings, extra))
    suite = replace(
        suite, name="parts", strategies={"CCD": entry}, shared={}, reference="CCD",
        protocols=("within",), seeds=tuple(range(options.seeds)), ks=(20,),
        scorers=("student", "teacher"),
    )  # fmt: skip
    return suite, entry


def varied(data: str) -> dict[str, dict[str, dict[str, Any]]]:
    """What each experiment changes of the reference, which is first and changes nothing."""
    return EXPERIMENTS | (ON_YELP if data == "yelp" else {})


def variants(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """A table for every experiment; all of them share one suite, its reference and its teachers."""
    suite, entry = whole(options)
    experiments = varied(options.data)
    changed = {
        f"{name} {variant}": table
        for name in names
        for variant, table in experiments[name].items()
        if table
    }
    suite = replace(suite, strategies={"CCD": replace(entry, variants=changed)})
    outcomes = run_suite(suite, options.to / "parts", jobs=options.jobs, on_task=told)
    found = {}
    for name in names:
        named = {f"CCD/{name} {v}" if t else "CCD": v for v, t in experiments[name].items()}
        own = [outcome for outcome in outcomes if outcome.cell.strategy in named]
        tests = {
            test.baseline: test
            for test in compare(own, options.to / "parts", "CCD")
            if test.quantity == "H"
        }
        found[name] = {
            variant: row([o for o in own if o.cell.strategy == strategy], tests.get(strategy))
            for strategy, variant in named.items()
        }
    return found


def drifting(options: argparse.Namespace) -> dict[str, Any]:
    """Every strategy with and without drift: accuracy on each newest block, as ratio."""
    if options.data == "yelp":
        calm, tuned = read_presplit(options.path), CONFIGS / "strategies_tuned.toml"
        plain = CONFIGS / "strategies_suite.toml"
    else:
        calm = synthetic_stream(1000, 600, 36_000, num_blocks=8, drift=0.0, base=0.35)
        tuned = plain = CONFIGS / "planted_tuned.toml"
    suite = load_suite(tuned if tuned.exists() else plain)
    for name, stream in (("calm", calm), ("drift", turned(calm, AT, SHARE, 0))):
        if not (options.to / "streams" / name).exists():
            write_stream(stream, options.to / "streams" / name)
    paths = {n: str(options.to / "streams" / n) for n in ("calm", "drift")}
    data = {n: DataConfig(source="stream", path=path) for n, path in paths.items()}
    learners = {n: replace(e, variants={}) for n, e in suite.strategies.items()}
    block = overlay(learners["FineTune"].settings, {"graph": "block"})
    learners["FineTune, own graph"] = StrategyEntry("FineTune", block)
    suite = replace(
        suite, name="drift", data=data, protocols=("within",), ks=(20,),
        seeds=tuple(range(options.seeds)), scorers=None, reference=None,
        strategies=learners,
    )  # fmt: skip
    outcomes = run_suite(suite, options.to / "drift", jobs=options.jobs, on_task=told)
    series: dict[tuple[str, str, int], list[float]] = {}
    for o in outcomes:
        if o.status == "finished":
            diagonal = o.result.matrix(o.about["served"]).values.diagonal()
            series[o.cell.strategy, o.cell.data, o.cell.seed] = diagonal.tolist()
    return {name: recovery(name, series, suite.seeds, AT) for name in suite.strategies}


def replayed(options: argparse.Namespace) -> dict[str, Any]:
    """Rank disparity along the student's training; see ``replay_gap``."""
    config = cells(whole(options)[0])[0].config
    stream = open_stream(config.data).to(pick_device("auto"))
    each = [replay_gap.measure(config.learner, stream, seed) for seed in range(options.seeds)]
    return {
        name: {key: spread([one[name][key] for one in each]) for key in row}
        for name, row in each[0].items()
    }


def told(label: str, succeeded: bool, seconds: float) -> None:
    """A line for every task."""
    print(f"{label}: {'done' if succeeded else 'failed'}, {seconds:.1f} s", flush=True)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("planted", "yelp"), default="planted")
    parser.add_argument("--path", help="folder of the Yelp blocks")
    parser.add_argument("--to", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, help="processes at a time")
    parser.add_argument("--write", type=Path, help="JSON file to write, with a table beside it")
    options = parser.parse_args()
    found = {}
    if names := [name for name in EXPERIMENTS if name in options.only]:
        found |= variants(options, names)
    if "drift" in options.only:
        found["drift"] = drifting(options)
    if "replay" in options.only:
        found["replay"] = replayed(options)
    about = {
        "command": f"python benchmarks/experiments.py --data {options.data}",
        "metric": "recall@20",
        "seeds": options.seeds,
        "hardware": hardware(),
        "versions": versions(),
    }
    if options.write:
        before = json.loads(options.write.read_text()) if options.write.exists() else {}
        merged = {**before, **found}
        found = {"about": about, **{name: merged[name] for name in PARTS if name in merged}}
        atomic_write_text(options.write, json.dumps(found, indent=1) + "\n")
        atomic_write_text(options.write.with_suffix(".md"), markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
