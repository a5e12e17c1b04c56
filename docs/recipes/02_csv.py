"""
Your CSV as a stream
====================

Any table with a user, an item and a time becomes blocks in ten lines. Columns are found by their
usual names; others are named. Ids stay as they are outside and are numbered by first appearance
inside, so that what is new in a block has the highest numbers.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ccdgraph.data import describe, read_interactions, split_stream, write_stream

draw = np.random.default_rng(0)
table = pd.DataFrame(
    {
        "uid": draw.integers(0, 80, 3000),
        "product": draw.integers(0, 60, 3000),
        "seconds": np.sort(draw.integers(1_700_000_000, 1_730_000_000, 3000)),
    }
)
folder = Path(tempfile.mkdtemp())
table.to_csv(folder / "events.csv", index=False)

# %%
# The ten lines:

events = read_interactions(
    folder / "events.csv",
    user="uid",
    item="product",
    time="seconds",
    duplicates="first",  # of repeated pairs
    k_core=2,
)
stream = split_stream(events, base=0.5, num_blocks=4)
for block in describe(stream):
    print(block.index, block.train, block.valid, block.test, block.new_users, block.start)

# %%
# Written once in the native format, it opens at once; ``ccdgraph data convert`` does the same. What
# cannot be used is refused with the row and what to do.

write_stream(stream, folder / "stream")
(folder / "bad.csv").write_text("user,item,time\n1,2,3\n1,,4\n")
try:
    read_interactions(folder / "bad.csv")
except ValueError as error:
    print(error)
