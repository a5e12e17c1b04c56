"""
Distil a heterogeneous ensemble into d = 8
==========================================

Teachers of different families agree on ranks, not on scores: members are combined by rank, and the
student learns the order of the combined list above everything else (RRD).
"""

import torch

from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill import RRD, Ensemble
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import BackboneConfig
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import EntityBatches, TripletBatches
from ccdgraph.train import BPR, FitConfig, MultinomialVAE, Objective, Part, embed, fit

block = synthetic_stream(600, 400, 14_000, num_blocks=1, num_communities=30, drift=0.0)[0]
graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
seen, everyone = graph.user_items, torch.arange(block.num_users)


def seeded():
    return torch.Generator().manual_seed(0)


def users():
    return EntityBatches(everyone, batch_size=128, generator=seeded())


def trained(config, *more, epochs=25):
    draw = seeded()
    model = config.build(block.num_users, block.num_items, generator=draw)
    rows = TripletBatches(
        block.train, block.num_items, seen.keys(), batch_size=512, num_negatives=1, generator=draw
    )
    own = Part(BPR(), rows)
    if config.backbone == "MultVAE":
        own = Part(MultinomialVAE(graph), users())
    fit(model, graph, [Objective((own, *more))], FitConfig(epochs=epochs, lr=1e-2))
    return embed(model, graph)


members = {name: trained(BackboneConfig(name, dim=64)) for name in ("LightGCN", "MF", "MultVAE")}
ensemble = Ensemble(list(members.values()))
lists = recommend_lists(ensemble, everyone, 40, seen)[1]

# %%
# Eight dimensions for thirty communities, and no graph to propagate over: a student that needs
# help. Measured on validation rows.

student = BackboneConfig("MF", dim=8)
alone = trained(student, epochs=30)
distilled = trained(student, Part(RRD(lists, seen), users(), weight=0.03), epochs=30)
found = {**members, "ensemble": ensemble, "student alone": alone, "distilled": distilled}
for name, scorer in found.items():
    print(f"{name:<14}{evaluate(scorer, block.valid, seen, ks=(20,)).mean()['recall@20']:.3f}")

# %%
# How much of the teacher's top the student has taken over:

from ccdgraph.distill import agreement

for name in ("student alone", "distilled"):
    print(name, agreement(found[name], ensemble, seen, k=20))
