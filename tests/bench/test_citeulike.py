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


def test_every_kind_of_cell_ends_up_in_the_table(tmp_path):
    for folder in FOLDERS:
        write_split(tmp_path / folder)
    rows = ["none", "sampled-rrd", "concf", "hetcomp", "ensemble directly"]
    words = ["--data", tmp_path, "--to", tmp_path / "runs", "--results", tmp_path / "a.json"]
    words += ["--only", "loo", "concf", "hetcomp", "--methods", *rows, "--seeds", "1"]
    words += ["--epochs", "1", "--device", "cpu"]
    command = [sys.executable, "benchmarks/citeulike.py", *map(str, words)]
    found = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    cells = json.loads((tmp_path / "a.json").read_text())["cells"]
    students = [(cell["protocol"], cell["row"]) for cell in cells if cell["row"] != "teachers"]
    assert students == [
        *(("loo", "none"), ("loo", "sampled-rrd"), ("concf", "concf")),
        *(("hetcomp", "none"), ("hetcomp", "ensemble directly"), ("hetcomp", "hetcomp")),
    ]
    table = (tmp_path / "a.md").read_text()
    assert table.count("| sampled-rrd |") == 1 and table.count("| teachers |") == 2
    assert "--only 'loo'" in table and "0.4698" in table  # the published number stands beside ours
