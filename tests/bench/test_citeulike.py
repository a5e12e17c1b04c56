"""The benchmark of the distillation methods runs, on tiny splits of the form that it reads."""

import gzip
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ccdgraph.config import rng

ROOT = Path(__file__).parents[2]
FOLDERS = ("citeulike_loo", "citeulike_concf_split", "citeulike_hetcomp_split")


def write_split(folder: Path, num_users: int = 30, num_items: int = 560) -> None:
    """Ten training items, a validation and a test item a user."""
    folder.mkdir()
    draw = rng("tiny split")
    item = torch.stack([torch.randperm(num_items, generator=draw)[:12] for _ in range(num_users)])
    item[0, 0] = num_items - 1  # the size of the catalogue
    for split, columns in (("train", range(10)), ("valid", [10]), ("test", [11])):
        rows = [f"{u},{int(item[u, c])}" for u in range(num_users) for c in columns]
        text = "user,item\n" + "\n".join(rows) + "\n"
        (folder / f"{split}.csv.gz").write_bytes(gzip.compress(text.encode()))


def measure(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    own = ["--data", folder, "--to", folder / "runs", "--results", folder / "a.json"]
    own += ["--seeds", 1, "--epochs", 1, "--device", "cpu", *words]
    return subprocess.run(
        [sys.executable, "benchmarks/citeulike.py", *map(str, own)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_every_kind_of_cell_ends_up_in_the_table(tmp_path):
    """What is not measured is named, and joins what is there when it has been."""
    for folder in FOLDERS:
        write_split(tmp_path / folder)
    rows = ["none", "sampled-rrd", "single head", "concf", "hetcomp", "ensemble directly"]
    words = ["--only", "loo", "concf", "hetcomp", "--methods", *rows]
    found = measure(tmp_path, *words, "--limit", 1e-9)
    assert found.returncode == 0 and "10 not measured" in found.stdout, found.stdout + found.stderr
    assert "hetcomp (MF, six, seed 0)" in (tmp_path / "a.md").read_text()
    found = measure(tmp_path, *words, "--jobs", 2)
    assert found.returncode == 0 and " 0 not measured" in found.stdout, found.stdout + found.stderr
    results = json.loads((tmp_path / "a.json").read_text())
    cells = {(cell["protocol"], cell["row"]): cell for cell in results["cells"]}
    assert {*cells} == {
        *(("loo", "teachers"), ("hetcomp", "teachers")),
        *(("loo", "none"), ("loo", "sampled-rrd")),
        *(("concf", "single head"), ("concf", "concf"), ("concf", "concf, all heads")),
        *(("hetcomp", "none"), ("hetcomp", "ensemble directly"), ("hetcomp", "hetcomp")),
    }
    for cell in cells.values():
        own = cell.get("members", {"student": cell}).values()
        assert all(one["seconds_per_epoch"] > 0 and one["epochs"] == 1 for one in own)
        assert all(one["peak_memory"]["host"] > 0 for one in own) and cell["hardware"]
    assert {row["measured"] for row in results["speed"].values()} == {"not measured"}
    taught = results["loo"]["MF, MF 200, sampled-rrd"]
    assert taught["published"] == 0.4698 and taught["seeds"] == 1  # theirs beside ours
    assert cells["loo", "sampled-rrd"]["metrics"]["test"]["hit@5"] == taught["measured"]
    assert str(tmp_path) not in json.dumps(results)  # nothing of this machine
    os.link(tmp_path / "a.json", tmp_path / "being read.json")
    found = measure(tmp_path, *words, "--to", tmp_path / "elsewhere")
    assert found.returncode == 0 and len(found.stdout.splitlines()) == 1, found.stdout
    assert not (tmp_path / "elsewhere").exists()  # the file of the results holds everything
    # A reader keeps the old file, whole. Mutation: the file is written in place.
    assert not (tmp_path / "a.json").samefile(tmp_path / "being read.json")
    table = (tmp_path / "a.md").read_text()
    assert table.count("| sampled-rrd |") == 1 and table.count("| teachers |") == 2
    assert "--only 'loo'" in table and "Not measured" not in table


def test_settings_are_chosen_by_validation_and_kept(tmp_path):
    """Six trials with a seed of their own; the reported cell is configured as the best of them."""
    write_split(tmp_path / "citeulike_hetcomp_split")
    words = ["--only", "hetcomp", "--methods", "directly, tuned", "--jobs", 2]
    found = measure(tmp_path, *words)
    assert found.returncode == 0 and " 0 not measured" in found.stdout, found.stdout + found.stderr
    results = json.loads((tmp_path / "a.json").read_text())
    trials = [cell for cell in results["cells"] if cell["seed"] == 100]
    (reported,) = (cell for cell in results["cells"] if cell["row"] == "directly, tuned")
    assert len(trials) == len({json.dumps(cell["config"]["methods"]) for cell in trials}) == 6
    values = [cell["metrics"]["valid"]["recall@50"] for cell in trials]
    assert len({*values}) > 1
    best = trials[values.index(max(values))]
    assert reported["seed"] == 0 and reported["config"] == best["config"] | {"seed": 0}
    assert results["trials"]["hetcomp"][0]["recall@50"] == max(values)
    assert {*results["hetcomp"]} == {"idle, six, teachers", "MF, six, directly, tuned"}


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    write_split(tmp_path / "citeulike_loo")
    write_split(tmp_path / "citeulike_concf_split")
    rows = (("loo", "none"), ("concf", "plain MF"), ("concf", "single head"))
    with ThreadPoolExecutor() as pool:
        calls = [("--only", p, "--methods", row, "--to", tmp_path / row) for p, row in rows]
        found = [*pool.map(lambda words: measure(tmp_path, *words), calls)]
    assert [one.returncode for one in found] == [0, 0, 0], [one.stderr for one in found]
    cells = json.loads((tmp_path / "a.json").read_text())["cells"]
    assert {(cell["protocol"], cell["row"]) for cell in cells} == {*rows}


def test_seconds_and_memory_are_those_of_one_kind_of_device(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from parts.citeulike_tables import _cost

    def row(device, seconds, memory):
        peak = {"host": 2**20} | ({"cuda": memory * 2**20} if device != "cpu" else {})
        cost = {"epochs": 3, "seconds_per_epoch": seconds, "peak_memory": peak}
        return {"device": device, "jobs": 2, **cost}

    on_cards = [row("cuda:0", 0.25, 5), row("cuda:1", 0.75, 7)]
    found = _cost([row("cpu", 9.0, 0), *on_cards])
    assert found == {"epochs": 3, "s/epoch": 0.5, "MiB": 7, "jobs": 2}
    assert _cost([row("cpu", 9.0, 0)]) == {"epochs": 3, "s/epoch": 9.0, "MiB": 1, "jobs": 2}


def test_methods_stand_beside_each_other_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from parts.citeulike_page import _grid
    from parts.citeulike_tables import grid

    keys = ("student", "teacher", "method", "measured", "sd")
    rows = [
        ("idle", "four", "teachers", 0.3, None),
        ("MF", "-", "none", 0.1, 0.01),
        ("MF", "four", "rrd", 0.2, None),
        ("GCN", "four", "rrd", 0.25, None),
        ("GCN", "four", "de", "not measured", None),
    ]
    found = grid({str(row): dict(zip(keys, row, strict=True)) for row in rows})
    assert found == {
        "teachers": {
            "GCN from four": {"mean": 0.3, "sd": None},
            "MF from four": {"mean": 0.3, "sd": None},
        },
        "none": {"MF": {"mean": 0.1, "sd": 0.01}},
        "rrd": {
            "GCN from four": {"mean": 0.25, "sd": None},
            "MF from four": {"mean": 0.2, "sd": None},
        },
    }
    assert _grid(found)[3] == "| none |  | 0.1000 ± 0.0100 |  |"
