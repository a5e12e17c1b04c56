"""The report of a small run and of a suite written by hand, read back."""

import json
import re
import shutil
import statistics
from types import SimpleNamespace

import pytest
from handmade_suite import BLOCKS, accuracy, write_suite
from reading_page import Page
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.metrics import AccuracyMatrix
from ccdgraph.report import read_content, write_report
from ccdgraph.report.drawing import look
from ccdgraph.run import Watcher, run

FIGURES = ("curves", "heat-maps", "newcomers", "costs", "stages")


@pytest.fixture(scope="session", params=["reported_run", "reported_suite"])
def page(request):
    return Page(request.getfixturevalue(request.param) / "report.html")


@pytest.fixture
def run_page(reported_run):
    return Page(reported_run / "report.html")


@pytest.fixture
def suite_page(reported_suite):
    return Page(reported_suite / "report.html")


def refused(*arguments) -> str:
    result = CliRunner().invoke(app, ["report", *(str(argument) for argument in arguments)])
    assert result.exit_code == 2, (result.output, result.exception)
    return result.stderr.strip()


def test_every_figure_is_there(page):
    found = [attributes["id"] for attributes in page.all("figure")]
    assert found == [f"g0-{name}" for name in FIGURES]
    for title in ("LA, ", "RA, ", "H, ", "new users", "new items", "H against seconds"):
        assert any(t.startswith(title) for t in page.titles), title
    assert "H against parameters" in page.titles


def test_every_method_has_a_heat_map_and_a_legend_entry(run_page, suite_page):
    for page, methods in (
        (run_page, ["student", "teacher", "stability"]),
        (suite_page, ["CCD student", "CCD teacher", "FineTune"]),
    ):
        maps = [title for title in page.titles if title.endswith("accuracy matrix")]
        assert maps == [f"{name}: accuracy matrix" for name in methods]
        assert set(methods) <= {"".join(words) for words in page.words["li"]}


def test_nothing_is_fetched_and_nothing_runs(page):
    references = [
        (tag, attributes[name])
        for tag, attributes in page.tags
        for name in ("src", "href", "xlink:href", "srcset", "data")
        if name in attributes
    ]
    outside = [(tag, to) for tag, to in references if not to.startswith(("#", "data:"))]
    assert outside == [("a", "https://arxiv.org/abs/2405.19046")]
    assert not re.search(r"<script|@import|url\((?!#)|\son\w+=|<i?frame|<object", page.text)
    policies = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_identifiers_are_unique_and_references_resolve(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', page.text)
    labels = " ".join(a.get("aria-labelledby", "") for _, a in page.tags).split()
    assert {*labels, *("".join(pair) for pair in named)} <= set(ids)


def test_every_drawing_is_described_and_every_table_has_heads(page):
    named = [a for a in page.all("svg") if a.get("aria-hidden") != "true"]
    for attributes in named:
        assert attributes["role"] == "img"
        assert len(attributes["aria-labelledby"].split()) == 2
    assert (
        len([words for words in page.words["desc"] if words]) == len(named) == len(page.titles) - 1
    )
    assert all("aria-labelledby" in attributes for attributes in page.all("table"))
    scopes = {attributes.get("scope") for attributes in page.all("th")}
    assert scopes == {"row", "col"}
    assert all(len(set(map(len, table))) == 1 for table in page.tables)  # no ragged rows


def test_numbers_are_those_of_run_json(run_page, reported_run):
    about = json.loads((reported_run / "run.json").read_text())
    shown = {tuple(row[:2]): row[2:] for row in run_page.table("method", "summary")}
    last = {tuple(row[:2]): row[3:] for row in run_page.table("method", "mean over")}
    names = ("LA", "RA", "H", "forgetting", "BWT")
    for scorer, measured in about["results"].items():
        for name in names:
            values = [None if v is None else f"{v:.4f}" for v in measured["with_base"][name]]
            assert shown[scorer, name] == [value or "-" for value in values]
        for base, words in (("with_base", "all blocks"), ("without_base", "without D0")):
            assert last[scorer, words] == [f"{measured[base][name][-1]:.4f}" for name in names]
    matrices = [table for table in run_page.tables if table[0][0] == "after"]
    for table, measured in zip(matrices, about["results"].values(), strict=True):
        rows = [["-" if v is None else f"{v:.4f}" for v in row] for row in measured["matrix"]]
        assert [row[1:] for row in table[1:]] == rows
    costs = {row[0]: row[1] for row in run_page.table("method", "parameters")}
    assert costs["teacher"] == f"{about['parameters']['teacher']:,}"
    assert costs["stability"] == "-"  # a proxy has no numbers of its own


def test_means_and_deviations_are_over_seeds(suite_page):
    matrices = [AccuracyMatrix.empty(BLOCKS) for _ in range(2)]
    for k in range(BLOCKS):
        for j in range(k + 1):
            values = [accuracy("CCD", "student", seed, k, j) for seed in (0, 1)]
            matrices = [m.set(k, j, v) for m, v in zip(matrices, values, strict=True)]
    h = [matrix.h_mean(BLOCKS - 1) for matrix in matrices]
    rows = {tuple(row[:2]): row for row in suite_page.table("method", "mean over")}
    wanted = f"{statistics.fmean(h):.4f} ± {statistics.stdev(h):.4f}"
    assert rows["CCD student", "all blocks"][5] == wanted
    assert rows["FineTune", "all blocks"][2] == "1"  # its other seed failed
    new = {tuple(row[:2]): row[2:] for row in suite_page.table("method", "counted")}
    of_block_1 = statistics.fmean(accuracy("CCD", "teacher", seed, 1, 1) for seed in (0, 1))
    assert new["CCD teacher", "new users"][1].startswith(f"{of_block_1:.4f} ± ")


def test_seconds_of_shared_teachers_count(suite_page):
    """A member's number is left out of its stage, so 4 s shared and 1 s own are one entry."""
    rows = {tuple(row[:2]): row[2:] for row in suite_page.table("strategy", "stage")}
    assert rows["CCD", "teacher"] == ["5", "2", "3"]
    assert rows["FineTune", "teacher"] == ["0.01", "0.02", "0.03"]
    costs = {row[0]: row for row in suite_page.table("method", "parameters")}
    assert costs["CCD student"] == ["CCD student", "100", "3.0 kB", "host 500.0 MB", "10", "6"]


def test_costs_far_apart_have_a_logarithmic_axis_in_plain_numbers(suite_page):
    figure = suite_page.text.split('id="g0-costs"')[1].split("</figure>")[0]
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", figure)
    assert {"0.1", "1", "100", "1,000"} <= {tick.strip() for tick in ticks}
    assert not any("$" in tick for tick in ticks)


def test_failures_tests_and_signs_are_shown(suite_page):
    [cell] = suite_page.table("cell", "why")
    assert cell == ["planted within strict own FineTune seed 1", "ValueError: no luck"]
    [test] = suite_page.table("baseline", "quantity")
    assert test == ["FineTune", "LA", "+0.1234", "9", "1", "0.01", "0.02"]
    signs = suite_page.table("strategy", "seed", "scorer", "kind")
    assert signs[0] == ["CCD", "0", "student", "falling", "D2", "it falls <b>& falls</b>"]


def test_settings_and_machine_are_shown(suite_page, run_page, tiny_config):
    own = dict(run_page.table("key", "value"))
    assert own["ccd.base.fit.epochs"] == "1"
    assert own["ccd.teachers.1.backbone"] == "MF"
    assert not set(own) & {"data.user", "teachers_from"}
    tables = [table for table in suite_page.tables if table[0] == ["key", "value"]]
    assert [dict(table[1:]).get("seed") for table in tables] == [None, "0 | 1", "0"]
    assert dict(suite_page.table("what", "value"))["hardware"] == "a machine"


def test_every_number_says_how_it_was_measured(page):
    rule = "recall@5 on test rows, protocol within, mask strict, ties by score descending"
    captions = [words for words in page.words["figcaption"] if words]
    assert sum(rule in words for words in captions) == len(FIGURES) - 1  # seconds have no mask


def test_next_protocol_shows_the_learning_average_only(tmp_path):
    write_suite(tmp_path, "next")
    page = Page(write_report(tmp_path))
    assert [a["id"] for a in page.all("figure")] == [
        f"g0-{name}" for name in FIGURES if name != "heat-maps"
    ]
    assert page.table("method", "mean over", "seeds", "LA")
    assert not any(title.startswith(("RA", "H")) for title in page.titles)


def test_strategy_without_a_backbone_stands_beside_every_backbone(tmp_path):
    write_suite(tmp_path)
    cells = json.loads((tmp_path / "cells.json").read_text())
    for cell, backbone in zip(cells["cells"], ("MF", "LightGCN", "own", "own"), strict=True):
        cell["backbone"] = backbone
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    groups = read_content(tmp_path).groups
    assert [group.title.split(", ")[-1] for group in groups] == ["backbone MF", "backbone LightGCN"]
    assert [list(group.strategies) for group in groups] == [["CCD", "FineTune"]] * 2


def test_methods_look_different_and_the_same_everywhere(suite_page):
    assert len({look(index) for index in range(63)}) == 63
    legend = suite_page.text.split('aria-label="Legend"')[1].split("</ul>")[0]
    assert [f"var(--method-{k})" in legend for k in range(4)] == [True, True, True, False]


def test_same_run_gives_the_same_bytes(reported_run, tmp_path):
    again = write_report(reported_run, tmp_path / "again.html")
    assert again.read_bytes() == (reported_run / "report.html").read_bytes()


def test_run_that_was_stopped_is_reported_so_far(tiny_config, tmp_path):
    class Stop(Watcher):
        def block(self, result):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_config, tmp_path / "run", watcher=Stop())
    page = Page(write_report(tmp_path / "run"))
    assert "has not reached its last block" in page.text
    assert not read_content(tmp_path / "run").complete


def test_command_writes_where_it_is_told(reported_run, tmp_path):
    to = tmp_path / "mine.html"
    result = CliRunner().invoke(app, ["report", str(reported_run), "--to", str(to)])
    assert (result.exit_code, result.stdout) == (0, f"wrote {to}\n")
    assert to.exists()


def test_other_folders_are_refused_in_one_sentence(tmp_path, reported_run, reported_suite):
    assert "holds no run and no suite" in refused(tmp_path)
    (tmp_path / "suite.json").write_text("{}")
    assert "suite without results" in refused(tmp_path)
    copy = shutil.copytree(reported_suite, tmp_path / "suite")
    (copy / "cells.json").write_text('{"cells": [], "version": 99}')
    assert "has version 99" in refused(copy)
    (copy / "cells.json").write_text('{"cells": [], "version": 1}')
    assert "has results: it has no cells" in refused(copy)
    copy = shutil.copytree(reported_run, tmp_path / "run")
    about = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({k: v for k, v in about.items() if k != "ties"}))
    assert "lacks 'ties'" in refused(copy)
    (copy / "run.json").write_text(json.dumps({**about, "results": {}}))
    assert "has measured no block yet" in refused(copy)


def test_cell_that_cannot_be_read_is_shown_as_such(reported_suite, tmp_path):
    copy = shutil.copytree(reported_suite, tmp_path / "suite")
    next((copy / "cells").iterdir()).joinpath("run.json").write_text("{")
    reasons = [row[1] for row in Page(write_report(copy)).table("cell", "why")]
    assert len(reasons) == 2
    assert any(reason.startswith("unreadable: ") for reason in reasons)


def test_missing_extra_is_named(reported_run, monkeypatch):
    names = SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr("ccdgraph.report.page.importlib", SimpleNamespace(util=names))
    assert refused(reported_run) == "a report needs matplotlib; pip install 'ccdgraph[report]'"
