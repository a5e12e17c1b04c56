"""The scripts of online distillation run, small, and their tables are made from their files."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccdgraph.data import synthetic_stream

ROOT = Path(__file__).parents[2]
SMALL = ["--users", "60", "--items", "40", "--rows", "900", "--epochs", "1"]
SCRIPTS = {
    "online.py": [*("--seeds", "2", "--choose", "1", "--blocks", "4", "--k", "5"), "--sweep"],
    "drift.py": [
        *("--seeds", "1", "--choose", "1", "--react", "1", "--blocks", "4", "--at", "4"),
        "--shares",
        "1",
    ],
    "alignment.py": ["--seeds", "1", "--choose", "1", "--blocks", "3"],
    "features.py": ["--seeds", "1", "--dim", "4"],
    "teacher_size.py": [*("--seeds", "1", "--choose", "1", "--blocks", "4"), "--multiples", "2"],
}


def run(*words: object) -> str:
    command = [sys.executable, "-W", "ignore", *map(str, words)]
    # Tensors this small take ten times as long where threads wait for one another.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=alone)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_and_its_table_is_made(name, tmp_path):
    if name == "drift.py":
        pytest.importorskip("river", reason="needs the extra 'drift'")
    path = tmp_path / "found.json"
    run(ROOT / "benchmarks" / name, *SCRIPTS[name], *SMALL, "--to", path)
    assert json.loads(path.read_text())["about"]["users"] == 60
    table = run(ROOT / "benchmarks" / "online_tables.py", path)
    assert table.startswith("| ") and "nan" not in table


def test_pieces_side_by_side_and_taken_up_find_the_same(tmp_path):
    """Fails where a draw depends on who ran before it; what is done is not done again."""
    words = [ROOT / "benchmarks" / "online.py", *SCRIPTS["online.py"], *SMALL]
    found = []
    for place, jobs in (("one", 1), ("three", 3), ("three", 1)):
        told = run(*words, "--jobs", jobs, "--runs", tmp_path / place, "--to", tmp_path / "a.json")
        found.append(json.loads((tmp_path / "a.json").read_text()))
        del found[-1]["about"], found[-1]["seconds"]
    assert found[0] == found[1] == found[2]
    assert " s 1/" not in told
    words += ["--k", "6", "--runs", tmp_path / "one"]
    failed = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert "work of other options" in failed.stderr


def test_the_table_of_yelp_is_one_command(tmp_path):
    """On a folder of such blocks; nothing is added to the scores of the teacher."""
    for block in synthetic_stream(60, 40, 900, num_blocks=5):
        rows = [
            f"{user},{item},{split}"
            for split in ("train", "valid", "test")
            for user, item in zip(
                getattr(block, split).user.tolist(),
                getattr(block, split).item.tolist(),
                strict=True,
            )
        ]
        text = "\n".join(["user,item,split", *rows]) + "\n"
        place = tmp_path / f"block_{block.index}.csv.gz"
        place.write_bytes(gzip.compress(text.encode()))
    words = [ROOT / "benchmarks" / "online.py", "--data", "yelp", "--k", "5", "--epochs", "1"]
    words += ["--seeds", "1", "--choose", "1", "--to", tmp_path / "found.json"]
    run(*words, "--path", tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    about = found["about"]
    assert (about["data"], about["slope"], about["lift"], about["blocks"]) == ("yelp", 1.0, 0.0, 5)
    assert len(found["cells"]) == 2 * 2 * 4 and not found["sweep"]
    assert {len(cell["gap by block"]) for cell in found["cells"].values()} == {2}
    command = [sys.executable, *map(str, words)]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert failed.returncode == 2 and "name the folder of its blocks" in failed.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("online", "online_yelp", "alignment", "drift", "drift_reactions"),
        *("features", "teacher_size"),
    ],
)
def test_tables_of_the_results_are_those_of_the_document(name):
    """A number typed into RESULTS.md, or left from an older file, fails."""
    table = run(
        ROOT / "benchmarks" / "online_tables.py", ROOT / "benchmarks" / "results" / f"{name}.json"
    )
    assert table.strip() in (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
