"""Reading a Parquet file of interactions and cutting it into a stream: seconds and peak memory.

    python benchmarks/reading.py --rows 5e7 --to benchmarks/results/reading_cpu.json

Skewed rows (user, item, time; ``scale.py`` draws them) are written once; every repetition reads and
splits them in a process of its own. Memory is what that adds to a process that has imported
ccdgraph, as multiples of the three columns of int64. Seconds are those of the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scale import write_rows

from ccdgraph.data import read_interactions, split_stream
from ccdgraph.run.folder import hardware, versions


def memory(name: str) -> int:
    """``VmRSS``, bytes held now, or ``VmHWM``, the most since :func:`forget`; of Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget() -> None:
    """Start the peak anew, which a process inherits from the one that started it."""
    Path("/proc/self/clear_refs").write_text("5")


def once(path: Path) -> dict[str, Any]:
    """Seconds of both steps and the memory they add."""
    forget()
    before, started = memory("VmRSS"), time.perf_counter()
    events = read_interactions(path)
    read = time.perf_counter()
    stream = split_stream(events, base=0.5, num_blocks=5)
    done = time.perf_counter()
    added, columns = memory("VmHWM") - before, 3 * 8 * len(events)
    seconds = {"read": read - started, "split": done - read, "both": done - started}
    sizes = {"users": len(stream.users), "items": len(stream.items)}
    return {**seconds, "bytes": added, "times the columns": added / columns, **sizes}


def main() -> None:
    """Write the rows, read them again and again, write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=5e7)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a Parquet file: one reading
    asked = parser.parse_args()
    if asked.one:
        asked.to.write_text(json.dumps(once(asked.one)))
        return
    with tempfile.TemporaryDirectory() as folder:
        source, found = Path(folder) / "rows.parquet", Path(folder) / "found.json"
        write_rows(int(asked.rows), source, 0)
        each = []
        for _ in range(asked.repeats):
            command = [sys.executable, __file__, "--one", str(source), "--to", str(found)]
            subprocess.run(command, check=True)
            each.append(json.loads(found.read_text()))
            print(each[-1], flush=True)
        size = source.stat().st_size
    result = {
        "rows": int(asked.rows),
        "file bytes": size,
        "hardware": hardware(),
        "versions": versions(),
        "median": {name: statistics.median(one[name] for one in each) for name in each[0]},
        "repetitions": each,
    }
    asked.to.parent.mkdir(parents=True, exist_ok=True)
    asked.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(result["median"])


if __name__ == "__main__":
    main()
