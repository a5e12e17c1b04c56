"""The experiments on CCD and the tuning: their variants, their arithmetic, a small run of each."""

import argparse
import importlib
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ccdgraph.bench import StrategyEntry, SuiteConfig, cells, load_suite
from ccdgraph.config import from_dict, to_toml
from ccdgraph.continual.replay import memorise
from ccdgraph.data import Interactions, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.run.source import open_stream

FOLDER = Path(__file__).parents[2] / "benchmarks"
STREAM = {"num_blocks": 2, "synthetic": {"num_users": 60, "num_items": 50, "num_interactions": 900}}
SHORT = {"batch_size": 64, "fit": {"epochs": 2, "lr": 1e-2}}


@pytest.fixture(autouse=True)
def _beside_the_scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def script(name: str):
    return importlib.import_module(name)


@pytest.mark.parametrize("data", ["planted", "yelp"])
def test_every_variant_is_another_run(data):
    """Cells that would be the same run are refused, so a variant without effect is found here."""
    experiments = script("experiments")
    suite, entry = experiments.whole(argparse.Namespace(data=data, path="somewhere", seeds=1))
    tables = {
        f"{name} {variant}": table
        for name, variants in experiments.varied(data).items()
        for variant, table in list(variants.items())[1:]
    }
    assert all(next(iter(v.values())) == {} for v in experiments.varied(data).values())
    whole = replace(suite, strategies={"CCD": replace(entry, variants=tables)})
    assert len(cells(whole)) == 1 + len(tables)
    ccd = cells(whole)[0].config.ccd
    assert ccd.update.replay[0].weight == 0.5 and ccd.teacher.distill_weight > 0


def test_recovery_is_hand_arithmetic():
    """From block 2 on .5, .9 and 1 of the accuracy without drift: recovered after two blocks."""
    series = {
        ("A", "calm", 0): [0.5, 0.5, 0.4, 0.4, 0.2],
        ("A", "drift", 0): [0.5, 0.5, 0.2, 0.36, 0.2],
    }
    series |= {("A", "calm", 1): [0.5] * 5, ("A", "drift", 1): [0.5, 0.5, 0.1, 0.1, 0.1]}
    found = script("parts.experiment_tables").recovery("A", series, (0, 1), 2)
    assert found["block 2"]["mean"] == pytest.approx(0.35)
    assert found["block 4"]["mean"] == pytest.approx(0.6)
    assert found["blocks to recover"] == 2 and found["recovered"] == "1 of 2"


def test_the_rank_gap_equals_a_loop():
    draw = torch.Generator().manual_seed(0)
    ours, theirs = (
        Embeddings(torch.randn(6, 3, generator=draw), torch.randn(9, 3, generator=draw))
        for _ in range(2)
    )
    pairs = Interactions(torch.tensor([0, 0, 4]), torch.tensor([1, 5, 2]))
    seen = UserItems.from_interactions([pairs], 6, 9)
    memory = memorise(theirs, seen, depth=4, draws=1)
    gap = script("parts.replay_gap").rank_gap(ours, memory, seen)
    for user in range(6):
        own = set(pairs.item[pairs.user == user].tolist())
        scores = ours.scores(torch.tensor([user]))[0].tolist()
        order = sorted((i for i in range(9) if i not in own), key=lambda i: -scores[i])
        expected = [order.index(i) - place for place, i in enumerate(memory.item[user].tolist())]
        assert gap[user].tolist() == expected


def test_replay_is_watched_from_the_state_of_the_learner(monkeypatch):
    """All draws start from the same student, and only what was drawn tells them apart."""
    module = script("parts.replay_gap")
    monkeypatch.setattr(module, "EPOCHS", (0, 1, 2))
    ccd = {
        "student": {"dim": 4},
        "teachers": [{"dim": 4}],
        **{name: SHORT for name in ("base", "generation", "update")},
        "teacher": {"update": False},
    }
    table = {"data": {"tiny": STREAM}, "strategies": {"CCD": {"settings": ccd}}, "seeds": [0]}
    config = cells(from_dict(SuiteConfig, table | {"ks": [5]}))[0].config
    found = module.measure(config.learner, open_stream(config.data), 0)
    assert list(found) == ["no replay", *module.DRAWS]
    assert len({row["epoch 0"] for row in found.values()}) == 1
    assert found["uniform"]["epoch 2"] != found["no replay"]["epoch 2"]
    assert {"drawn recovered, 2", "others recovered, 2"} < set(found["uniform"])


def test_what_is_recovered_is_hand_arithmetic():
    """Of the drawn pair 10 of 20 places are left, of the others 4 + 5 of 4 + 8."""
    plain, replayed = torch.tensor([[20, 4, 8]]), torch.tensor([[10, 4, 5]])
    drawn = [torch.tensor([[True, False, False]])]
    module, row = script("parts.replay_gap"), defaultdict(list)
    gaps = [{epoch: [each] for epoch in module.EPOCHS} for each in (plain, replayed)]
    module._parts(row, *gaps, drawn)
    assert row["drawn recovered, 30"] == [0.5]
    assert row["others recovered, 30"] == pytest.approx([0.25])


def small(tmp_path: Path) -> Path:
    settings = {"backbone": {"dim": 4}, "base": SHORT, **SHORT}
    table = {"data": {"tiny": STREAM}, "ks": [5], "seeds": [0], "name": "small"}
    table["strategies"] = {"FineTune": {"settings": settings}, "FIRE": {}}
    (tmp_path / "small.toml").write_text(to_toml(from_dict(SuiteConfig, table)))
    return tmp_path / "small.toml"


def tuned(tmp_path: Path, monkeypatch, *words: str, fails: str = "") -> None:
    asked = ["tune.py", str(small(tmp_path)), "--to", str(tmp_path / "trials"), "--trials", "3"]
    monkeypatch.setattr("sys.argv", [*asked, *words])
    if not fails:
        return script("tune").main()
    with pytest.raises(SystemExit, match=fails):
        script("tune").main()


def test_every_strategy_has_as_many_trials_and_the_best_is_written(tmp_path, monkeypatch):
    results, suite = tmp_path / "chosen.json", tmp_path / "tuned.toml"
    tuned(tmp_path, monkeypatch, "--write", str(suite), "--results", str(results))
    found = json.loads(results.read_text())["strategies"]
    assert [row["trials"] for row in found.values()] == [3, 3]
    for name, chosen in found.items():
        paths = [tmp_path / "trials" / f"{name}.{place}.json" for place in range(3)]
        trials = [json.loads(path.read_text()) for path in paths]
        assert trials[0]["settings"] == {} and chosen["before"] == trials[0]["valid"]["H"]
        assert chosen["tuned"] == max(trial["valid"]["H"] for trial in trials)
    over = json.loads(found["FineTune"]["chosen"])
    written = load_suite(suite)
    assert written.seeds == (0,) and written.name == "tuned"
    settings = written.strategies["FineTune"].settings
    assert settings["batch_size"] == over.get("batch_size", 64)


def test_tuning_goes_on_with_what_is_missing_and_cuts_all_alike(tmp_path, monkeypatch):
    results = tmp_path / "chosen.json"
    tuned(tmp_path, monkeypatch, "--limit", "0", "--results", str(results), fails="no trial yet")
    tuned(tmp_path, monkeypatch, "--results", str(results))
    before = {path: path.read_text() for path in (tmp_path / "trials").glob("*.json")}
    (tmp_path / "trials" / "FIRE.2.json").unlink()
    tuned(tmp_path, monkeypatch, "--limit", "0", "--results", str(results))
    found = json.loads(results.read_text())["strategies"]
    assert [row["trials"] for row in found.values()] == [2, 2]
    tuned(tmp_path, monkeypatch, "--results", str(results))
    after = {path: path.read_text() for path in (tmp_path / "trials").glob("*.json")}
    changed = [path.name for path in after if after[path] != before[path]]
    assert changed == ["FIRE.2.json"], "finished trials are not run again"


def test_some_strategies_are_tuned_alone(tmp_path, monkeypatch, capsys):
    tuned(tmp_path, monkeypatch, "--only", "FIRE", "--limit", "60")
    ran = {path.name for path in (tmp_path / "trials").glob("*.json")}
    assert ran == {f"FIRE.{place}.json" for place in range(3)}
    tuned(tmp_path, monkeypatch, "--only", "FIER", fails="2")
    assert "'--only' names 'FIER', expected some of ['FineTune', 'FIRE']" in capsys.readouterr().err


def test_tuning_reads_no_test_row(tmp_path):
    """Mutation: trials counted by test rows."""
    tune, suite = script("tune"), load_suite(small(tmp_path))
    stream = open_stream(suite.data["tiny"])
    first, second, third = stream.blocks
    poisoned = [replace(b, test=replace(b.test, item=b.test.item.flip(0))) for b in (first, second)]
    changed = replace(stream, blocks=(*poisoned, replace(third, test=third.test[:0])))
    cell = tune.resolved(suite, tune.targets(suite)["FineTune"], {}, 100)
    config = replace(cell.config, evaluate=replace(cell.config.evaluate, mask="block"))
    cell = replace(cell, config=config)
    assert tune.validated(cell, stream, tmp_path) == tune.validated(cell, changed, tmp_path)


@pytest.mark.parametrize("name", ["CCD", "FineTune"])
def test_trials_share_their_base_models(name, tmp_path):
    tune, suite = script("tune"), load_suite(small(tmp_path))
    ccd = {"student": {"dim": 4}, "teachers": [{"dim": 4}], "base": SHORT, "update": SHORT}
    ccd |= {"generation": SHORT, "teacher": SHORT}
    suite = replace(suite, strategies={"CCD": StrategyEntry(None, ccd), **suite.strategies})
    stream = open_stream(suite.data["tiny"])
    cell = tune.resolved(suite, tune.targets(suite)[name], {}, 100)
    first = tune.validated(cell, stream, tmp_path)
    [base] = (path for path in (tmp_path / "base").iterdir() if path.is_dir())
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()}
    assert tune.validated(cell, stream, tmp_path) == first
    assert before == {path: path.stat().st_mtime_ns for path in before}
    other = tune.validated(
        tune.resolved(suite, tune.targets(suite)[name], {}, 101), stream, tmp_path
    )
    assert other != first


def test_a_variant_on_the_blocks_own_graph_is_tuned_by_itself(tmp_path):
    tune, suite = script("tune"), load_suite(small(tmp_path))
    entry = suite.strategies["FineTune"]
    variants = {"block": {"graph": "block"}, "short": {"fit": {"epochs": 1}}}
    suite = replace(suite, strategies={"FineTune": replace(entry, variants=variants)})
    assert list(tune.targets(suite)) == ["FineTune", "FineTune/block"]
    chosen = {"FineTune": {"topk": 3}, "FineTune/block": {"batch_size": 7}}
    found = {name: {"chosen": json.dumps(over)} for name, over in chosen.items()}
    written = script("parts.tuning_spaces").written(suite, found)
    settings = {one.name: one.settings for one in written.learners()}
    assert settings["FineTune"]["topk"] == settings["FineTune/short"]["topk"] == 3
    assert settings["FineTune/block"] == {**entry.settings, "graph": "block", "batch_size": 7}
    (tmp_path / "written.toml").write_text(to_toml(written))
    assert load_suite(tmp_path / "written.toml").strategies.keys() == chosen.keys()


def test_seeds_that_are_reported_are_not_tuned_with(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        tuned(tmp_path, monkeypatch, "--seeds", "0", "7")
    assert "[0] are reported by the suite" in capsys.readouterr().err


def test_trials_are_distinct_and_a_strategy_without_a_space_is_named():
    spaces = script("parts.tuning_spaces")
    suite = load_suite(FOLDER / "configs" / "strategies_suite.toml")
    for learner in spaces.targets(suite).values():
        found = [json.dumps(one, sort_keys=True) for one in spaces.settings(learner, 12)]
        cut = len(found) if learner.strategy == "FullBatch" else 12
        assert len(set(found)) == len(found) == cut
    with pytest.raises(SystemExit, match="'mine:Mine' has no space"):
        spaces.space(replace(learner, strategy="mine:Mine"))


def test_every_strategy_that_learns_steps_is_timed(tmp_path, monkeypatch):
    module, continual = script("constant_steps"), importlib.import_module("ccdgraph.continual")
    known = {n for n in continual.__all__ if isinstance(getattr(continual, n), type)}
    strategies = {n for n in known if issubclass(getattr(continual, n), continual.Strategy)}
    assert strategies - set(module.NAMES) <= {"Strategy", "FIRE", "AdaptiveCCD", "Online"}
    words = ["--blocks", "2", "--rows", "512", "--epochs", "2", "--only", "SPMF", "FullBatch"]
    monkeypatch.setattr("sys.argv", ["constant_steps.py", *words, "--to", str(tmp_path / "a.json")])
    module.main()
    found = json.loads((tmp_path / "a.json").read_text())["steps"]
    assert set(found) == {"SPMF, model", "FullBatch, model"}
    fixed, growing = found["SPMF, model"], found["FullBatch, model"]
    assert fixed["steps of an epoch, first"] == fixed["steps of an epoch, last"] == 2
    assert growing["steps of an epoch, last"] > growing["steps of an epoch, first"] > 2


def test_a_small_number_does_not_look_like_zero():
    figure = script("parts.experiment_tables").figure
    assert [figure(value) for value in (0.0, 3e-5, 0.0123, 12.0)] == [
        "0.0000",
        "3e-05",
        "0.0123",
        "12.0",
    ]


@pytest.mark.parametrize("data", ["planted", "yelp"])
def test_tables_of_the_experiments_are_those_of_the_document(data):
    """A number typed into RESULTS.md, or left from an older file, fails."""
    results = FOLDER / "results" / "experiments"
    table = script("parts.experiment_tables").markdown(
        json.loads((results / f"{data}.json").read_text())
    )
    assert table == (results / f"{data}.md").read_text()
    assert table in (FOLDER / "RESULTS.md").read_text()
