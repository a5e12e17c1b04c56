"""
Write a distiller
=================

A distiller is a :class:`~ccdgraph.train.Term`: embeddings of the student and a batch in, a scalar
out. The teacher enters once, without gradient. ``ccdgraph new term MyDistiller`` writes such a file
with its test.
"""

import torch

from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import LightGCN
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import Entities, EntityBatches, TripletBatches
from ccdgraph.testing import check_term
from ccdgraph.train import BPR, FitConfig, Objective, Part, Term, embed, fit


class TopOfTheList(Term):
    """Cross-entropy of the student's scores on each user's list against the teacher's."""

    def __init__(self, teacher, lists, temperature=1.0):
        super().__init__()
        self.teacher, self.lists, self.temperature = teacher.detach(), lists, temperature

    def forward(self, out, batch: Entities):
        user, item = batch.index.unsqueeze(1), self.lists[batch.index]
        wanted = (self.teacher.pairs(user, item) / self.temperature).softmax(1)
        said = (out.pairs(user, item) / self.temperature).log_softmax(1)
        return -(wanted * said).sum(1).mean()


# %%
# Train a teacher of 32 dimensions on a small block, and list its best unseen items for every user.

block = synthetic_stream(300, 200, 7000, num_blocks=1, drift=0.0)[0]
graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
seen, everyone = graph.user_items, torch.arange(block.num_users)


def trained(dim, *more, epochs=20):
    draw = torch.Generator().manual_seed(0)
    model = LightGCN(block.num_users, block.num_items, dim, generator=draw)
    rows = TripletBatches(
        block.train, block.num_items, seen.keys(), batch_size=512, num_negatives=1, generator=draw
    )
    objective = Objective((Part(BPR(), rows), *more))
    fit(model, graph, [objective], FitConfig(epochs=epochs, lr=1e-2, weight_decay=1e-4))
    return embed(model, graph)


teacher = trained(32)
lists = recommend_lists(teacher, everyone, 40, seen)[1]

# %%
# Check the contract on a handful of users: finite, right gradient, none to the teacher.

small = slice(0, 4)
own = teacher.user[small].clone().requires_grad_()
few = type(teacher)(own, teacher.item)
term = TopOfTheList(few, lists[small])
start = LightGCN(4, block.num_items, 3)
check_term(
    term,
    type(teacher)(start.user.detach(), start.item.detach()),
    Entities(everyone[:2]),
    frozen=[own],
)

# %%
# Distil into four dimensions, on validation rows with and without the term.

users = EntityBatches(everyone, batch_size=128, generator=torch.Generator().manual_seed(1))
distilled = trained(4, Part(TopOfTheList(teacher, lists), users, weight=50.0))
for name, scorer in (("teacher", teacher), ("alone", trained(4)), ("distilled", distilled)):
    print(f"{name:<10}{evaluate(scorer, block.valid, seen, ks=(20,)).mean()['recall@20']:.3f}")
