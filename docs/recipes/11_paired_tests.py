"""
Is the difference real?
=======================

A suite compares strategies on the same data over seeds and tests them user by user: Wilcoxon's
signed-rank test on the average over seeds, two-sided, corrected after Holm. Two means without a
test say little. ``ccdgraph bench SUITE.toml`` does this on the command line.
"""

import tempfile
from pathlib import Path

from ccdgraph.bench import compare, load_suite, run_suite

folder = Path(tempfile.mkdtemp())
(folder / "small.toml").write_text("""
seeds = [0, 1]
ks = [20]
reference = "long"

[data.planted]
num_blocks = 2
synthetic = { num_users = 200, num_items = 150, num_interactions = 4000 }

[strategies.long]
strategy = "FineTune"
settings = { base = { fit = { epochs = 15, lr = 1e-2 } }, fit = { epochs = 10, lr = 1e-2 } }

[strategies.short]
strategy = "FineTune"
settings = { base = { fit = { epochs = 1, lr = 1e-3 } }, fit = { epochs = 1, lr = 1e-3 } }
""")
outcomes = run_suite(load_suite(folder / "small.toml"), folder / "run")
print((folder / "run" / "results.md").read_text())

# %%
# The same from Python. Given again, the suite runs only what is missing.

for test in compare(outcomes, folder / "run"):
    print(test.baseline, test.quantity, f"{test.difference:+.4f}", f"p = {test.corrected:.2g}")
