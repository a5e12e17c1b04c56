"""The benchmark of the distillation methods runs, on tiny splits of the form that it reads."""

import gzip
import json
import os
import subprocess
import sys
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
    table = (tmp_path / "a.md").read_text()
    assert table.count("| sampled-rrd |") == 1 and table.count("| teachers |") == 2
    assert "--only 'loo'" in table and "Not measured" not in table
