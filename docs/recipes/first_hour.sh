# A backbone of your own through CCD: teachers, distillation, evaluation, a report.
cat > my_gat.py <<'END'
from torch_geometric.nn import GATv2Conv
from ccdgraph.nn import Backbone

class MyGAT(Backbone):
    def __init__(self, num_users, num_items, dim, *, generator=None):
        super().__init__(num_users, num_items, dim, generator=generator)
        self.conv = GATv2Conv(dim, dim)

    def propagate(self, x, graph):
        return x + self.conv(x, graph.edge_index.as_tensor())
END
ccdgraph demo --to runs/mine --set ccd.student.backbone=my_gat:MyGAT \
    --set ccd.generation.fit.min_steps=150 "$@"
ccdgraph recommend runs/mine --user c2u0000
ccdgraph report runs/mine
