"""Seconds of a newcomer's first hour: the commands of README.md in a fresh clone.

    python benchmarks/first_hour.py --to benchmarks/results/first_hour.json

Clones this repository into an empty directory and runs "make demo", then the shell block of the
README, in an environment of HOME, LANG and a PATH of the system alone. Network, pip's cache and
load decide how long the installation takes; the load average before each step stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ACTIVATE = "source .venv/bin/activate"


def steps(readme: str) -> dict[str, str]:
    """What README.md says to type, by what it is for.

    Raises:
        ValueError: the README says something else now.
    """
    block = re.search(r"^```sh\n(.*?)^```", readme, re.M | re.S)
    if block is None or "    make demo " not in readme or ACTIVATE not in readme:
        raise ValueError("README.md shows other commands; change benchmarks/first_hour.py too")
    *first, recommend, report = block[1].strip().splitlines()
    return {
        "make demo": "make demo",
        "a backbone of one's own through CCD": "\n".join([ACTIVATE, *first]),
        "recommend": f"{ACTIVATE}\n{recommend}",
        "report": f"{ACTIVATE}\n{report}",
    }


def timed(command: str, folder: Path) -> dict[str, Any]:
    """Runs one step as a new shell would, without what this process has in its environment."""
    plain = {"HOME": os.environ["HOME"], "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    load, started = os.getloadavg()[0], time.perf_counter()
    subprocess.run(["bash", "-e", "-c", command], cwd=folder, env=plain, check=True)
    return {"seconds": time.perf_counter() - started, "load average": load}


def main() -> None:
    """Clone, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", type=Path, required=True, help="JSON file to write")
    target = parser.parse_args().to.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "ccdgraph"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        readme = (clone / "README.md").read_text(encoding="utf-8")
        found = {name: timed(command, clone) for name, command in steps(readme).items()}
        about = json.loads((clone / "runs/mine/run.json").read_text(encoding="utf-8"))
        if not (clone / "runs/mine/report.html").exists():
            raise SystemExit("the README's commands left no report")
    result = {
        "about": {
            "command": "python benchmarks/first_hour.py --to benchmarks/results/first_hour.json",
            "hardware": about["hardware"],
            "versions": about["versions"],
        },
        "steps": found,
        "total": {"seconds": sum(step["seconds"] for step in found.values())},
    }
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
