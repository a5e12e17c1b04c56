import copy
import json
import multiprocessing
import shutil
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest
import torch
from small_suite import table

from ccdgraph import checkpoint
from ccdgraph.bench import StrategyEntry, SuiteConfig, cells, read_results, run_suite
from ccdgraph.bench.cell import base_key, cell_folder, tasks
from ccdgraph.bench.schedule import _clean_start, locked, work
from ccdgraph.bench.tables import latex, markdown
from ccdgraph.config import from_dict
from ccdgraph.run import Row, loop, run
from ccdgraph.run.folder import write_parquet


@pytest.fixture
def suite() -> SuiteConfig:
    return from_dict(SuiteConfig, table())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A whole suite that no test may change."""
    folder = tmp_path_factory.mktemp("straight") / "suite"
    outcomes = run_suite(from_dict(SuiteConfig, table()), folder)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4, outcomes
    return folder


@pytest.fixture
def copied(straight, tmp_path):
    return shutil.copytree(straight, tmp_path / "suite")


def counting(**strategies) -> SuiteConfig:
    entries = {
        name: {"strategy": "counting:Counting", "settings": settings}
        for name, settings in strategies.items()
    }
    plain = {**copy.deepcopy(table()), "strategies": entries, "scorers": "none", "backbones": {}}
    return from_dict(SuiteConfig, plain)


def counts(outcomes) -> dict[str, int]:
    statuses = [outcome.status for outcome in outcomes]
    return {status: statuses.count(status) for status in set(statuses)}


def test_a_suite_leaves_results_tables_and_cells(straight, suite):
    names = {path.name for path in straight.iterdir()}
    results = {"results.parquet", "results.md", "results.tex", "cells.json"}
    assert names == {*results, "suite.json", "suite.toml", "lock", "cells", "base"}
    found = read_results(straight / "results.parquet").to_pandas()
    assert set(found["cell"]) == {cell.key for cell in cells(suite)}
    rows = pyarrow.parquet.read_table(
        cell_folder(straight, cells(suite)[1]) / "metrics.parquet"
    ).to_pandas()
    mine = found[(found["cell"] == cells(suite)[1].key) & (found["split"] != "cost")]
    assert mine["value"].tolist() == rows["value"].tolist()
    assert set(mine["seed"]) == {1} and set(mine["protocol"]) == {"within"}


def test_costs_are_recorded_with_their_stages(straight, suite):
    found = read_results(straight / "results.parquet").to_pandas()
    found = found[(found["cell"] == cells(suite)[0].key) & (found["split"] == "cost")]
    seconds = found[found["metric"] == "seconds"]
    shared = seconds[seconds["group"] == "shared"]
    assert shared["scorer"].tolist() == ["teacher 0", "teacher 1"]
    own = set(zip(seconds["learnt"], seconds["scorer"], strict=True)) - {(0, "teacher 0")}
    assert (0, "generation") in own and (2, "student") in own and (2, "evaluation") in own
    for metric in ("peak_memory", "parameters", "state_bytes"):
        assert (found[found["metric"] == metric]["value"] > 0).all(), metric
    about = json.loads((straight / "cells.json").read_text())["cells"][0]
    last = cells(suite)[0].config.data
    assert about["parameters"]["teacher"] > about["parameters"]["student"] > 0
    assert about["status"] == "finished" and last.num_blocks == 2
    assert {"host"} <= set(about["peak_memory"]) and len(about["state_bytes"]) == 3


def test_shared_teachers_change_no_bit(straight, suite, tmp_path):
    """Fails when cells of one seed take over the teachers of another."""
    found = cells(suite)
    assert len({base_key(cell.config) for cell in found}) == 2
    assert len(list((straight / "base").iterdir())) == 2
    result = run(found[1].config, tmp_path / "alone")
    rows = pyarrow.parquet.read_table(cell_folder(straight, found[1]) / "metrics.parquet")
    assert [row["value"] for row in rows.to_pylist()] == [row.value for row in result.rows]


def test_baselines_share_a_base_model(suite, tmp_path):
    """One base model for two strategies on two graphs; none for FullBatch, which learns its own."""
    both = {"block": {"graph": "block"}}
    names = {"FineTune": both, "SPMF": {}, "FullBatch": {}}
    entries = {name: StrategyEntry(None, {}, variants) for name, variants in names.items()}
    asked = replace(suite, seeds=(1,), scorers=None, strategies=entries)
    outcomes = run_suite(asked, tmp_path / "suite")
    assert counts(outcomes) == {"finished": 4}
    assert len(list((tmp_path / "suite" / "base").iterdir())) == 1
    assert [len(outcome.base_seconds) for outcome in outcomes] == [1, 1, 1, 0]
    for outcome in outcomes[1:3]:
        alone = run(outcome.cell.config, tmp_path / outcome.cell.strategy)
        assert [row.value for row in alone.rows] == [row.value for row in outcome.rows]


def test_finished_cells_are_never_run_again(copied, suite, monkeypatch):
    before = (copied / "results.md").read_text()
    monkeypatch.setattr("ccdgraph.bench.cell.run", None)  # calling it would fail the cells
    outcomes = run_suite(suite, copied)
    assert counts(outcomes) == {"finished": 4}
    assert (copied / "results.md").read_text() == before


def test_a_suite_that_was_killed_anywhere_goes_on(straight, suite, tmp_path, monkeypatch):
    """Fails when a stage is lost, learnt twice, or a folder half made is in the way."""
    real, left, stops = loop._Run._tell, 0, 0

    def tell(self, key):
        nonlocal left
        real(self, key)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Run, "_tell", tell)
    while True:
        left = 5
        try:
            outcomes = run_suite(suite, tmp_path / "suite")
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    assert stops > 8 and counts(outcomes) == {"finished": 4}
    assert (tmp_path / "suite" / "results.md").read_text() == (straight / "results.md").read_text()
    for cell in cells(suite):
        mine, other = (
            checkpoint.load(cell_folder(folder, cell) / "checkpoint")[0]
            for folder in (tmp_path / "suite", straight)
        )
        assert all(torch.equal(mine[name], other[name]) for name in other)


def test_a_suite_may_grow(copied, suite):
    outcomes = run_suite(replace(suite, seeds=(0, 1, 2)), copied)
    assert counts(outcomes) == {"finished": 6}
    assert " 3 | 0 |" in (copied / "results.md").read_text()


def test_a_cell_that_fails_is_shown_and_the_others_go_on(tmp_path):
    suite = counting(most={}, breaks={"fails": "raise"}, least={"sign": -1.0})
    outcomes = run_suite(suite, tmp_path / "suite")
    assert counts(outcomes) == {"finished": 4, "failed": 2}
    shown = (tmp_path / "suite" / "results.md").read_text()
    assert "breaks seed 1: RuntimeError: counting is not allowed here" in shown
    line = next(line for line in shown.splitlines() if line.startswith("| breaks"))
    assert line.split(" | ")[1:3] == ["failed", "-"] and line.endswith("| 0 | 2 |")
    failed = [cell for cell in json.loads((tmp_path / "suite" / "cells.json").read_text())["cells"]]
    assert [cell["error"][:12] for cell in failed if cell["status"] == "failed"] == [
        "RuntimeError"
    ] * 2
    assert "| least | H |" in shown and "| breaks | H |" not in shown
    assert r"breaks & failed & - & -" in (tmp_path / "suite" / "results.tex").read_text()


def test_some_of_a_suite_may_be_run_and_what_is_left_is_no_failure(tmp_path):
    suite, folder = counting(most={}, least={"sign": -1.0}), tmp_path / "suite"
    assert counts(run_suite(suite, folder, limit=0.0)) == {"missing": 4}
    outcomes = run_suite(suite, folder, only=["least"])
    assert counts(outcomes) == {"finished": 2, "missing": 2}
    line = next(x for x in (folder / "results.md").read_text().splitlines() if "| most" in x)
    assert line.split(" | ")[1:3] == ["not run", "-"] and line.endswith("| 0 | 0 |")
    with pytest.raises(ValueError, match="'only' names 'last', expected some of most, least"):
        run_suite(suite, folder, only=["last"])
    assert counts(run_suite(suite, folder, jobs=2, limit=0.0)) == {"finished": 2, "missing": 2}
    assert counts(run_suite(suite, folder)) == {"finished": 4}


def test_cells_whose_base_models_fail_say_so(suite, tmp_path, monkeypatch):
    suite, real = replace(suite, seeds=(0,)), loop._Run._tell

    def tell(self, key):
        if key == "0/teacher 1":
            raise OSError("the lights went out")
        real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_tell", tell)
        outcomes = run_suite(suite, tmp_path / "suite")
    assert counts(outcomes) == {"failed": 2}
    assert outcomes[0].error == "its shared base models failed: OSError: the lights went out"
    assert counts(run_suite(suite, tmp_path / "suite")) == {"finished": 2}


def test_an_unreadable_cell_is_shown_and_left_alone(copied, suite):
    place = cell_folder(copied, cells(suite)[2])
    for name in ("metrics.parquet", "run.json"):
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[: len(whole) // 2])
        outcomes = run_suite(suite, copied)
        assert counts(outcomes) == {"finished": 3, "failed": 1}
        assert outcomes[2].error.startswith("unreadable: '") and name in outcomes[2].error
        assert "unreadable" in (copied / "results.md").read_text()
        assert (place / name).read_bytes() == whole[: len(whole) // 2]
        (place / name).write_bytes(whole)
    assert counts(run_suite(suite, copied)) == {"finished": 4}


def test_two_suites_in_one_folder_are_refused(copied, suite, tmp_path):
    with pytest.raises(
        ValueError, match="holds the suite 'tiny', not 'other'; name another folder"
    ):
        run_suite(replace(suite, name="other"), copied)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no suite"):
        run_suite(suite, tmp_path / "mine")
    with locked(copied), pytest.raises(ValueError, match="another process runs a suite in"):
        run_suite(suite, copied)


def test_results_of_another_version_are_refused(copied, suite):
    found = read_results(copied / "results.parquet")
    newer = found.replace_schema_metadata({b"ccdgraph.results.version": b"2"})
    for written, version in ((newer, "2"), (found.replace_schema_metadata(None), "none")):
        write_parquet(copied / "results.parquet", written)
        with pytest.raises(ValueError, match=f"has schema version {version}, this release reads 1"):
            run_suite(suite, copied)
    (copied / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is damaged; remove it and run the suite again"):
        run_suite(suite, copied)
    (copied / "results.parquet").unlink()
    with pytest.raises(ValueError, match="is missing; run the suite first"):
        read_results(copied / "results.parquet")
    assert counts(run_suite(suite, copied)) == {"finished": 4}


def test_data_that_changed_between_cells_are_refused(copied, suite):
    about = cell_folder(copied, cells(suite)[3]) / "run.json"
    plain = json.loads(about.read_text())
    plain["data"]["fingerprint"] = "0" * 64
    about.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match="the data 'planted' have changed between the cells"):
        run_suite(suite, copied)


def test_cells_in_processes_equal_those_of_one(straight, suite, tmp_path):
    """Base models come before their cell, and a cell whose process dies fails alone."""
    ccd = replace(suite.strategies["CCD"], variants={})
    dies = StrategyEntry("counting:Counting", {"fails": "die"}, backbone_key="backbone")
    both = replace(suite, seeds=(0,), scorers=None, strategies={"CCD": ccd, "dies": dies})
    told = []
    outcomes = run_suite(both, tmp_path / "two", jobs=2, on_task=lambda *task: told.append(task))
    assert [outcome.status for outcome in outcomes] == ["finished", "failed"]
    assert outcomes[1].error == "its process ended with exit code 9"
    assert [label.split()[0] for label, good, _ in told if good] == ["base", "planted"]
    assert not multiprocessing.active_children()
    path = cell_folder(straight, cells(suite)[0]) / "metrics.parquet"
    expected = [Row(**row) for row in pyarrow.parquet.read_table(path).to_pylist()]
    mine = [row for row in outcomes[0].rows if row.scorer in suite.scorers]
    assert [row[:6] for row in mine] == [row[:6] for row in expected]
    assert [row.value for row in mine] == pytest.approx([row.value for row in expected])
    with pytest.raises(ValueError, match="'jobs' is 0; it must be at least 1"):
        work([], 0)


@pytest.mark.parametrize(("cuda", "method"), [("13.0", "spawn"), (None, "forkserver")])
def test_no_process_is_forked_where_torch_may_have_initialised_cuda(monkeypatch, cuda, method):
    # On an H200 every cell of a forked process ended with "CUDA error: initialization error".
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert _clean_start().get_start_method() == method


def test_tables_show_means_and_deviations_by_hand(tmp_path):
    suite = counting(**{"most_liked": {}})
    outcomes = run_suite(suite, tmp_path / "suite")
    matrices = [outcome.result.matrix("counts") for outcome in outcomes]
    h = torch.tensor([matrix.h_mean(2) for matrix in matrices])
    ra = torch.tensor([matrix.retained_average(2, base=False) for matrix in matrices])
    shown = markdown("x", outcomes, [], "recall@5")
    line = next(line for line in shown.splitlines() if line.startswith("| most_liked"))
    values = line.split(" | ")
    assert values[4] == f"{h.mean():.4f} ± {h.std():.4f}"
    assert values[6] == f"{ra.mean():.4f} ± {ra.std():.4f}"
    written = latex(outcomes, [], "recall@5")
    assert rf"most\_liked & counts & {matrices[0].learning_average(2):.4f}"[:24] in written
    assert f"{h.mean():.4f} $\\pm$ {h.std():.4f}" in written
    assert written.count(r"\begin{tabular}") == written.count(r"\end{tabular}") == 1


def test_the_next_protocol_retains_nothing(tmp_path):
    suite = replace(counting(most={}, least={"sign": -1.0}), protocols=("next",))
    outcomes = run_suite(suite, tmp_path / "suite")
    shown = (tmp_path / "suite" / "results.md").read_text()
    line = next(line for line in shown.splitlines() if line.startswith("| most"))
    values = line.split(" | ")
    assert values[2] != "-" and values[3:5] == ["-", "-"] and values[6:8] == ["-", "-"]
    assert "| least | LA |" in shown and "| least | RA |" not in shown
    assert {label.protocol for label in (outcome.cell for outcome in outcomes)} == {"next"}


def test_a_strategy_without_a_backbone_stands_beside_all(tmp_path):
    """Fails when it is compared with nothing."""
    plain = copy.deepcopy(table()) | {"scorers": "none", "seeds": [0]}
    plain["backbones"] = {"one": {"dim": 2}, "two": {"dim": 3}}
    plain["strategies"] = {
        "bare": {"strategy": "counting:Bare"},
        "least": {"strategy": "counting:Counting", "settings": {"sign": -1.0}},
    }
    outcomes = run_suite(from_dict(SuiteConfig, plain), tmp_path / "suite")
    assert counts(outcomes) == {"finished": 3}
    shown = (tmp_path / "suite" / "results.md").read_text()
    assert [line for line in shown.splitlines() if line.startswith("## ")] == [
        f"## planted, protocol within, mask strict, backbone {name}" for name in ("one", "two")
    ]
    for line in ("| bare | counts |", "| least | counts |", "| least | H |"):
        assert shown.count(line) == 2, line


def test_done_tasks_need_no_base(copied, suite):
    shutil.rmtree(copied / "base")
    left = []
    work(tasks(cells(suite), copied), on_task=lambda *told: left.append(told))
    assert left == []
    assert counts(run_suite(suite, copied)) == {"finished": 4}


def test_only_what_is_served_shows_its_test(straight):
    """Teachers and distilled students are shown and not tested, proxies are not even shown."""
    body = (straight / "results.tex").read_text().split(r"\midrule")[1].splitlines()
    shown = [line.split(" & ") for line in body if " & " in line]
    assert [line[:2] for line in shown] == [
        ["CCD", "student"],
        ["CCD", "teacher"],
        ["CCD", "generated"],
        ["CCD/no proxies", "student"],
        ["CCD/no proxies", "teacher"],
        ["CCD/no proxies", "generated"],
    ]
    assert [line[-1] == r"- \\" for line in shown] == [True, True, True, False, True, True]
