"""
The first hour
==============

A backbone of your own as the student of CCD: three teachers of different kinds are trained on the
base block, distilled into it, and both are updated block by block.

The whole of it is a class of one method and three commands, ``docs/recipes/first_hour.sh``:

.. literalinclude:: ../recipes/first_hour.sh
   :language: shell

Here the same from Python. Configurations name classes by import path, so the class goes to a file.
"""

import sys
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
sys.path.insert(0, str(folder))
(folder / "my_gat.py").write_text("""
from torch_geometric.nn import GATv2Conv
from ccdgraph.nn import Backbone

class MyGAT(Backbone):
    def __init__(self, num_users, num_items, dim, *, generator=None):
        super().__init__(num_users, num_items, dim, generator=generator)
        self.conv = GATv2Conv(dim, dim)

    def propagate(self, x, graph):
        return x + self.conv(x, graph.edge_index.as_tensor())
""")
import my_gat

print(my_gat.MyGAT(5, 4, 8))

# %%
# ``ccdgraph.testing`` checks the contract: growth, permutation, gradients, edges, learning. It
# raises one sentence that says what does not hold.

from ccdgraph.nn import BackboneConfig
from ccdgraph.testing import check_backbone

check_backbone(
    lambda users, items, dim, generator: BackboneConfig("my_gat:MyGAT", dim).build(
        users, items, generator=generator
    )
)

# %%
# A run is one configuration and leaves one folder. ``ccdgraph report`` shows it as one HTML file.

from ccdgraph.cli.demo import demo_config
from ccdgraph.report import write_report
from ccdgraph.run import run

config = demo_config(
    [
        "ccd.student.backbone=my_gat:MyGAT",
        "ccd.generation.fit.min_steps=150",  # attention learns more slowly than a sparse product
        "data.num_blocks=2",
        "data.synthetic.num_users=300",
        "data.synthetic.num_items=200",
        "data.synthetic.num_interactions=7000",
    ]
)
result = run(config, folder / "mine")
for scorer in result.scorers:
    print(scorer, result.matrix(scorer).values)
print(write_report(folder / "mine").stat().st_size, "bytes of report")
