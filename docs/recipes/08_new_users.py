"""
New users tomorrow
==================

Two ways to meet someone new. **Fold in**: the mean of the items, at once, for a request that cannot
wait. **Grow**: with the next block, rows for everyone who is new, which training then goes on from.
"""

import tempfile

import torch

from ccdgraph.continual.growth import grow
from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import LightGCN
from ccdgraph.run import DataConfig, RunConfig, Served, SyntheticConfig, run
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit

sizes = SyntheticConfig(num_users=300, num_items=200, num_interactions=7000, drift=0.0)
data = DataConfig(num_blocks=1, synthetic=sizes)
settings = {
    "backbone": {"backbone": "LightGCN", "dim": 16},
    "base": {"batch_size": 512, "fit": {"epochs": 20, "lr": 1e-2}},
}
folder = tempfile.mkdtemp() + "/run"
run(RunConfig(data=data, strategy="FineTune", settings=settings), folder)

# %%
# Folded in: three items of community 4 are all that is known. The ids of the built-in stream show
# the community.

served = Served.load(folder)
basket = [item for item in served.items.tolist() if item.startswith("c4i")][:3]
print(basket, "->", [item for item, _ in served.recommend_new(basket, 8)])

# %%
# Grown: old rows keep their bits, new ones start from neighbours, one and two hops away.

stream = synthetic_stream(300, 200, 7000, num_blocks=1, drift=0.0)
base, block = stream
draw = torch.Generator().manual_seed(0)
before = BipartiteGraph.from_interactions(base.train, base.num_users, base.num_items)
model = LightGCN(base.num_users, base.num_items, 16, generator=draw)
rows = TripletBatches(
    base.train,
    base.num_items,
    before.user_items.keys(),
    batch_size=512,
    num_negatives=1,
    generator=draw,
)
fit(model, before, [Objective((Part(BPR(), rows),))], FitConfig(epochs=20, lr=1e-2))
after = before.grow(block.train, block.num_users, block.num_items)
for init in ("random", "one-hop", "two-hop"):
    grown = grow(model, after, init=init, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grown.user[: base.num_users], model.user)
    newcomers = evaluate(
        embed(grown, after), block.test, after.user_items, ks=(20,), user_from=base.num_users
    )
    print(
        f"{init:<8} recall@20 of {len(newcomers)} new users before any training: "
        f"{newcomers.mean()['recall@20']:.3f}"
    )
