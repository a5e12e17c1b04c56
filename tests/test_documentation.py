"""The documentation keeps what it promises: its first hour, its numbers, its names."""

import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

import ccdgraph
from ccdgraph.continual import Strategy

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs/recipes/first_hour.sh"
REDUCED = [
    *("--set", "data.num_blocks=1", "--set", "data.synthetic.num_users=200"),
    *("--set", "data.synthetic.num_items=120", "--set", "data.synthetic.num_interactions=4000"),
    *("--set", "ccd.base.fit.epochs=3", "--set", "ccd.generation.fit.epochs=3"),
]


def lines_of_code(text):
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and line != "END" and not line.startswith("#")]


def test_the_first_hour_runs_as_it_is_printed(tmp_path):
    command = tmp_path / "bin/ccdgraph"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ccdgraph "$@"\n')
    command.chmod(0o755)
    path = {"PATH": f"{command.parent}:{os.environ['PATH']}"}
    environment = {**os.environ, **path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-e", str(SCRIPT), *REDUCED],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "student: recall@20" in done.stdout and "teacher: recall@20" in done.stdout
    assert (tmp_path / "runs/mine/report.html").exists()
    about = json.loads((tmp_path / "runs/mine/run.json").read_text())
    assert about["config"]["ccd"]["student"]["backbone"] == "my_gat:MyGAT"


def test_the_first_hour_takes_fifteen_lines_and_the_readme_shows_them():
    text = SCRIPT.read_text()
    assert len(lines_of_code(text)) <= 15
    readme = (ROOT / "README.md").read_text()
    for line in lines_of_code(text):
        assert line.removesuffix(' "$@"') in readme, line


def measured():
    return extension("measured")


def extension(name):
    path = ROOT / f"docs/_ext/{name}.py"
    pytest.importorskip("sphinx", reason="sphinx is not installed")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def test_numbers_are_those_of_the_file_and_nothing_where_there_is_none(tmp_path):
    module = measured()
    content = {"about": {"seeds": 2}, "a": {"b": {"mean": 0.25, "sd": 0.125}, "n": 1234}}
    (tmp_path / "found.json").write_text(json.dumps(content))
    value, about = module.look_up("found.json / a / b", tmp_path)
    assert module.shown(value, 2) == "0.25 ±\N{NO-BREAK SPACE}0.12"
    assert module.shown(0.0, 2) == "0.00" and module.shown(0.0031, 2) == "3e-03"
    assert module.shown(1234, 2) == "1,234" and about == {"seeds": 2}
    assert module.look_up("found.json / a / c", tmp_path) is None
    assert module.look_up("absent.json / a", tmp_path) is None


@pytest.mark.parametrize(
    "seeds, said", [((5, 5), "5 seeds"), ((5, 2), "up to 5 seeds"), ((1,), "one seed")]
)
def test_rows_that_know_their_seeds_are_believed(seeds, said):
    module = measured()
    rows = {str(place): {"seeds": number} for place, number in enumerate(seeds)}
    assert module.origin(module.told_seeds({"seeds": 3}, rows)).startswith(said)
    assert module.origin(module.told_seeds({"seeds": 3}, {"a": {}})).startswith("3 seeds")


def test_a_suite_gives_means_over_its_finished_seeds_and_names_what_has_not_run(tmp_path):
    place = {"data": "d", "protocol": "within", "mask": "block", "backbone": "own"}
    done = {"status": "finished", "served": "student", "hardware": "one core", "versions": {}}
    cells = [{"cell": f"c{s}", "strategy": "A", **place, **done} for s in range(2)]
    cells.append({"cell": "c2", "strategy": "B", **place, "status": "missing"})
    (tmp_path / "cells.json").write_text(json.dumps({"cells": cells}))
    at = {"scorer": "student", "split": "test", "group": "all", "metric": "recall@20"}
    matrix = {(0, 0): 0.5, (1, 0): 0.25, (1, 1): 0.75}
    rows = [
        {"cell": f"c{s}", **at, "learnt": k, "tested": j, "value": value + 0.1 * s}
        for s in range(2)
        for (k, j), value in matrix.items()
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "results.parquet")
    place = "results.parquet / d, within, block, own"
    look_up = measured().look_up
    found, about = look_up(f"{place} / A, student", tmp_path)
    assert about["hardware"] == "one core" and found["seeds"] == 2
    assert found["LA"]["mean"] == pytest.approx((0.625 + 0.725) / 2)  # (.5 + .75) / 2, and + .1
    assert found["RA"]["mean"] == pytest.approx((0.5 + 0.6) / 2)  # (.25 + .75) / 2
    first, second = 2 * 0.625 * 0.5 / 1.125, 2 * 0.725 * 0.6 / 1.325
    assert found["H"]["mean"] == pytest.approx((first + second) / 2)
    assert found["H"]["sd"] == pytest.approx(abs(first - second) / 2**0.5)
    assert found["H without D0"]["mean"] == pytest.approx(0.8)
    assert look_up(f"{place} / B, student / H", tmp_path)[0] == "not measured yet"
    assert look_up(f"{place} / C, student / H", tmp_path) is None


def test_a_strategy_that_has_not_run_has_the_scorers_of_its_family():
    planned = extension("results_files").planned
    names = ["CCD", "CCD/tables", "CCD/late", "FineTune", "SPMF"]
    ran = ["CCD, student", "CCD, teacher", "CCD/tables, student", "FineTune, model"]
    assert planned(names, ran) == [
        *("CCD, student", "CCD, teacher", "CCD/tables, student"),
        *("CCD/late, student", "CCD/late, teacher", "FineTune, model", "SPMF"),
    ]
    assert planned(["A", "B"], ["A, model"]) == ["A, model", "B, model"]


def test_a_link_to_a_page_or_an_anchor_that_is_not_there_is_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.html").write_text('<h1 id="top"></h1><a href="#top">x</a><a href="#no">x</a>')
    links = ["../a%20b.html#top", "../a%20b.html#bottom", "gone.html", "https://example.org/gone"]
    page = "".join(f'<a href="{link}">x</a>' for link in links) + '<img src="gone.png">'
    (tmp_path / "sub/page.html").write_text(page)
    assert sorted(extension("internal_links").broken(tmp_path)) == [
        "a b.html: #no",
        "sub/page.html: ../a%20b.html#bottom",
        "sub/page.html: gone.html",
        "sub/page.html: gone.png",
    ]


def test_names_are_looked_up_as_python_would_and_slips_are_not_found():
    found = extension("names").found
    assert found("ccdgraph.run.Served", None).__module__ == "ccdgraph.run.serve"
    assert found("Served.load", "ccdgraph.run.serve").__qualname__ == "Served.load"
    assert found("nn.Module", "ccdgraph.nn.gnn").__name__ == "Module"
    assert found("ccdgraph.run.Serverd", None) is None
    assert found("Served.laod", "ccdgraph.run.serve") is None


def test_pages_name_every_extra_command_strategy_and_layer():
    from typer.main import get_command

    from ccdgraph import continual
    from ccdgraph.cli import app

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    install, strategies = ((ROOT / f"docs/{n}.rst").read_text() for n in ("install", "strategies"))
    assert [name for name in project["optional-dependencies"] if f"``{name}``" not in install] == []
    own = [getattr(continual, name) for name in continual.__all__]
    classes = [kind for kind in own if inspect.isclass(kind) and issubclass(kind, Strategy)]
    assert len(classes) > 10
    listed = {*re.findall(r"\* - ``(\w+)``", strategies), "Strategy"}
    assert {kind.__name__ for kind in classes} == listed
    pages = "".join(page.read_text() for page in ROOT.glob("docs/*.rst"))
    assert [name for name in get_command(app).commands if f"ccdgraph {name}" not in pages] == []
    folders = {path.stem for path in (ROOT / "ccdgraph").iterdir() if path.name[0].islower()}
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    known = {name for name in folders if f"`{name}/`" in guide or f"`{name}.py`" in guide}
    assert folders - {"py"} == known


def test_every_file_of_the_methods_page_exists():
    text = (ROOT / "docs/methods.rst").read_text()
    named = re.findall(r"``((?:nn|data|distill|continual|losses)[a-z/_0-9]*)``", text)
    assert len(named) > 30
    for name in named:
        place = ROOT / "ccdgraph" / name
        assert place.is_dir() or place.with_suffix(".py").exists(), name


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.rst")), ids=lambda page: page.name)
def test_every_measured_place_is_in_its_file(page):
    """A file may be missing, as not measured; a key that a file lacks is a slip of the pen."""
    if {"how_to", "generated"} & set(page.parts):
        return
    text, module = page.read_text(), measured()
    asked = re.findall(r"^\.\. measured:: (.+)$", text, re.M)
    asked += [path.split(" % ")[0] for path in re.findall(r":measured:`([^`]+)`", text)]
    for path in asked:
        if (module.RESULTS / path.split(" / ")[0]).exists():
            assert module.look_up(path) is not None, path


def test_the_deviations_are_variants_of_their_suite():
    """They are read from its results, so a slip shows only once it has run."""
    suite = tomllib.loads((ROOT / "benchmarks/configs/deviations_suite.toml").read_text())
    known = {f"released/{name}" for name in suite["strategies"]["released"]["variants"]}
    page = (ROOT / "docs/reproduce.rst").read_text()
    shown = set(re.findall(r"deviations/results.parquet / .* / (released/[\w-]+), \w+ / H", page))
    assert shown == known


def public_names():
    for module in pkgutil.walk_packages(ccdgraph.__path__, "ccdgraph."):
        missing = module.name.endswith(".kernels") and importlib.util.find_spec("triton") is None
        if missing or module.name.endswith("__main__"):
            continue
        if module.name == "ccdgraph.data.kernels" and importlib.util.find_spec("triton") is None:
            continue
        found = importlib.import_module(module.name)
        yield module.name, found
        for name, value in vars(found).items():
            own = getattr(value, "__module__", None) == module.name
            if (
                own
                and not name.startswith("_")
                and inspect.isroutine(value) | inspect.isclass(value)
            ):
                yield f"{module.name}.{name}", value
                if inspect.isclass(value):
                    for member, function in vars(value).items():
                        if not member.startswith("_") and inspect.isroutine(function):
                            yield f"{module.name}.{name}.{member}", function


def test_every_public_name_has_a_docstring():
    bare = [name for name, value in public_names() if not inspect.getdoc(value)]
    assert not bare
    assert sum(1 for _ in public_names()) > 500
