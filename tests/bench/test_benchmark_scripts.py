"""The arithmetic of the benchmark scripts, and one small size through the largest of them."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_suite import table

from ccdgraph.bench import SuiteConfig, run_suite
from ccdgraph.bench.cell import cell_folder
from ccdgraph.config import from_dict
from ccdgraph.data import skewed_interactions
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts_find_one_another(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_exponents_are_slopes_of_logarithms():
    counted = script("scale").COUNTED
    sizes = [
        {
            "rows": rows,
            "seconds": {"read": 3e-6 * rows, "learn block 0": 1e-9 * rows**2},
            "processor seconds": dict.fromkeys(counted, 1e-6 * rows),
            "peak_bytes": {"host": 10 * rows, "device": 0},
        }
        for rows in (1000, 2000, 5000)
    ]
    found = script("scale").exponents(sizes)
    assert found["read"] == pytest.approx(1) and found["host bytes"] == pytest.approx(1)
    assert found["learn block 0"] == pytest.approx(2)
    assert found["split, processor"] == pytest.approx(1)
    assert "device bytes" not in found, "nothing was on a device"


def test_a_ratio_that_got_worse_is_named(capsys):
    stored = {"one": 1.0, "other": 2.0}
    worse = script("speed").worse
    assert worse({"one": 1.4, "other": 1.0}, stored, 1.5) == []
    assert worse({"one": 1.6, "other": 2.0}, stored, 1.5) == ["one"]
    assert "1.600" in capsys.readouterr().out


LAYER = {
    "gather floor": 1.0,
    "CSR forward": 0.5,
    "CSR forward and backward": 2.0,
    "PyG LGConv forward": 8.0,
    "PyG LGConv forward and backward": 16.0,
}
ALONE = {"CSR forward, launched alone": 3.0, "CSR forward and backward, launched alone": 4.0}


@pytest.mark.parametrize(("alone", "expected"), [({}, 2 / 16), (ALONE, 4 / 16)])
def test_what_is_launched_alone_is_compared_with_what_is_launched_alone(alone, expected):
    """Fails if a recorded layer, where there is one, is compared with PyG's, which is not."""
    found = {
        "propagation": LAYER | alone,
        "serving": {"student": [1.0, 1.0], "ensemble": [2.0, 2.0]},
        "evaluation": {"evaluation": 1.0, "lists of everyone": 2.0},
        "steps, 100k": {"sampled": [1.0, 1.0], "whole": [2.0, 2.0]},
    }
    ratios = script("speed").ratios(found)
    assert ratios["CSR / PyG LGConv, forward and backward"] == expected
    assert ratios["CSR forward and backward / gather floor"] == 2
    rows = {name: row for name, *row in script("figures").propagation(found)}
    assert rows["CSR"] == ["500.0", "0.50", "2000.0", "2.00"]
    assert ("CSR, launched alone" in rows) == bool(alone)


class Counted:
    """A clock on which every call takes a second more than the one before."""

    device, repeats, calls = torch.device("cpu"), 2, 0

    def once(self, run):
        self.calls += 1
        return float(self.calls), run()


def test_pairs_are_timed_by_turns_and_their_results_compared():
    pair = script("parts/before_after").by_turns(Counted(), lambda: "old", lambda: "new")
    assert pair[1:] == ("old", "new")
    # Turns (1, 2), which do not count, (3, 4) and (5, 6).
    assert pair[0] == {"before": 4, "after": 5, "times faster": pytest.approx((3 / 4 + 5 / 6) / 2)}


def test_optimisations_leave_results_as_they_are(monkeypatch):
    rows = skewed_interactions(300, 200, 6000)
    graph, pairs = BipartiteGraph.from_interactions(rows, 300, 200), script("parts/before_after")
    graph = graph.grow(Interactions(torch.tensor([0]), torch.tensor([0])), 2000, 400)
    for part in (pairs.blocks, pairs.wide, pairs.counting):
        assert part(graph, Counted())["difference"] <= 1e-6, part.__name__
    assert pairs.rest(graph, Counted())["difference"] <= 1e-3, "of gradients that are sums"


def test_the_table_of_speed_shows_pairs_sizes_and_ratios():
    found = {
        "serving": {"repeats": 5, "batch": [1, 2], "student": [0.001, 0.002]},
        "before and after": {
            "repeats": 5,
            "one": {"before": 0.2, "after": 0.1, "times faster": 2.0, "difference": 0.0},
        },
        "edges": {"MB of embeddings": [5.0], "ns an edge": [7.5]},
        "ratios": {"a / b": 0.25},
    }
    text = script("parts/speed_table").table(found)
    for line in (
        "| serving, student, batch 2 | 2.000 |",
        "| one | 200.0 | 100.0 | 2.00 | 0 |  |",
        "| 5 | 7.50 |",
        "| a / b | 0.2500 |",
    ):
        assert line in text


def test_ratios_of_peers_are_to_the_model_of_their_kind():
    row = {"seconds an epoch": 2.0, "seconds an evaluation": 1.0, "recall@20": 0.1}
    peers = {"ccdgraph LightGCN": row, "ccdgraph MF": {**row, "seconds an epoch": 1.0}}
    peers["PyG LightGCN"] = {**row, "seconds an epoch": 9.0}
    text = script("peers").table({"peers": peers})
    assert "| PyG LightGCN | 9.00 | 4.5 |" in text
    assert "implicit" not in text and "RecBole" not in text, "neither was measured"


def test_a_peer_that_fails_leaves_what_was_measured_before_it(tmp_path, monkeypatch):
    """Fails if the file is written once, at the end, or if its table needs every peer."""
    peers, row = script("peers"), {"seconds an epoch": 2.0, "seconds an evaluation": 1.0}

    def trained(*_):
        yield {"ccdgraph LightGCN": row | {"recall@20": 0.1}}
        raise RuntimeError("out of memory")

    monkeypatch.setattr(peers, "trained", trained)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of the tests that follow
    argv = ["peers.py", "--sizes", "200", "150", "2000", "--to", str(tmp_path / "found.json")]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(RuntimeError, match="out of memory"):
        peers.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["peers"]) == ["ccdgraph LightGCN"]
    assert "| ccdgraph LightGCN | 2.00 |" in (tmp_path / "found.md").read_text()


def test_one_small_size_goes_through_every_stage(tmp_path):
    scale = script("scale")
    scale.write_rows(8000, tmp_path / "rows.parquet", seed=0)
    found = scale.measure(tmp_path / "rows.parquet", 8, 50)
    assert found["rows"] == 8000 and len(found["train"]) == 2
    assert set(scale.COUNTED) < set(found["seconds"])
    reading = script("reading").once(tmp_path / "rows.parquet")
    assert (reading["users"], reading["items"]) == (found["users"], found["items"])
    assert reading["both"] == pytest.approx(reading["read"] + reading["split"])
    assert reading["times the columns"] * 3 * 8 * found["rows"] == pytest.approx(reading["bytes"])
    assert {"block 0/generation", "block 1/student", "block 1/teacher 1"} < set(found["seconds"])
    assert set(found["recall@20"]) == {"student", "teacher", "popularity"}
    assert all(0 < value < 1 for value in found["recall@20"].values())


def test_the_first_hour_is_timed_as_the_readme_says_it():
    steps = script("first_hour").steps
    readme = (FOLDER.parent / "README.md").read_text()
    found = steps(readme)
    script_of_docs = (FOLDER.parent / "docs/recipes/first_hour.sh").read_text()
    typed = "\n".join(found.values())
    commands = [line for line in script_of_docs.splitlines() if line.startswith("ccdgraph ")]
    assert len(commands) == 3 and found["make demo"] == "make demo"
    for line in commands:
        assert line.removesuffix(' "$@"') in typed
    for gone in ("    make demo ", "source .venv/bin/activate", "```sh"):
        with pytest.raises(ValueError, match="shows other commands"):
            steps(readme.replace(gone, ""))


def test_a_summary_holds_what_was_run_and_of_how_many_seeds(tmp_path):
    """Two of three strategies are run, one of them with one seed of two."""
    plain = {**table(), "scorers": "none", "strategies": {"FineTune": {}, "FIRE": {}, "SPMF": {}}}
    suite = from_dict(SuiteConfig, plain)
    run_suite(suite, tmp_path / "runs", only=["FIRE"])
    outcomes = run_suite(suite, tmp_path / "runs", only=["FineTune"])
    gone = next(o.cell for o in outcomes if (o.cell.strategy, o.cell.seed) == ("FIRE", 1))
    shutil.rmtree(cell_folder(tmp_path / "runs", gone))
    [found] = script("summary").summary(tmp_path / "runs")["tables"].values()
    assert {name: row["seeds"] for name, row in found.items()} == {
        "FineTune, model": 2,
        "FIRE, model": 1,
    }
    [first, second] = (o for o in outcomes if o.cell.strategy == "FineTune")
    each = [o.result.matrix("model").learning_average(2) for o in (first, second)]
    assert found["FineTune, model"]["LA"]["mean"] == pytest.approx(sum(each) / 2)
    assert found["FIRE, model"]["LA"]["sd"] is None


def test_a_summary_gives_the_distilled_student_the_numbers_of_the_student(tmp_path):
    """The ensemble has those of all its members."""
    run_suite(from_dict(SuiteConfig, {**table(), "seeds": [0]}), tmp_path / "runs", only=["CCD"])
    [found] = script("summary").summary(tmp_path / "runs")["tables"].values()
    student, teacher, generated = (
        found[f"CCD, {scorer}"]["parameters"] for scorer in ("student", "teacher", "generated")
    )
    assert generated == student < teacher
