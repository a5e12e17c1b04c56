"""
Resume after a crash
====================

A run stores what it needs after every stage, whole or not at all. Stopped anywhere, the same
command with ``--resume`` (here ``resume=True``) goes on after the last finished stage; on the CPU
the results are those of a run that was never stopped, bit by bit.
"""

import tempfile
from pathlib import Path

from ccdgraph.cli.demo import demo_config
from ccdgraph.run import Watcher, run

small = [
    "data.num_blocks=2",
    "data.synthetic.num_users=200",
    "data.synthetic.num_items=150",
    "data.synthetic.num_interactions=4000",
    "ccd.base.fit.epochs=5",
    "ccd.generation.fit.epochs=3",
]
config = demo_config(small)
folder = Path(tempfile.mkdtemp())


class Crash(Watcher):
    """Stops the run in the middle of block 1, as a lost machine would."""

    def stage(self, label, seconds):
        if label == "block 1 teacher 0":
            raise KeyboardInterrupt


try:
    run(config, folder / "run", watcher=Crash())
except KeyboardInterrupt:
    print("stopped; left behind:", sorted(path.name for path in (folder / "run").iterdir()))

# %%
# Go on, and compare with a run that was never stopped.

resumed = run(config, folder / "run", resume=True)
straight = run(config, folder / "straight")
print("bitwise equal:", resumed.rows == straight.rows)

# %%
# What would not be the same run is refused.

try:
    run(demo_config([*small, "seed=1"]), folder / "run", resume=True)
except ValueError as error:
    print(error)
