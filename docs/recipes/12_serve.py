"""
Serve it
========

A run leaves what serving needs, without the data it learnt from. :class:`~ccdgraph.run.Served`
keeps it in memory; ``ccdgraph export`` writes it for other programs. How long a request takes is
measured under :doc:`/results`.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from ccdgraph.run import DataConfig, RunConfig, Served, SyntheticConfig, export, run

folder = Path(tempfile.mkdtemp())
sizes = SyntheticConfig(num_users=300, num_items=200, num_interactions=7000)
settings = {
    "backbone": {"backbone": "LightGCN", "dim": 16},
    "base": {"batch_size": 512, "fit": {"epochs": 10, "lr": 1e-2}},
}
data = DataConfig(num_blocks=1, synthetic=sizes)
run(RunConfig(data=data, strategy="FineTune", settings=settings), folder / "run")

# %%
# A known user by id, and a new one by three items. Items they have are left out.

served = Served.load(folder / "run")
user, basket = served.users[0], served.items.tolist()[:3]
for ask in (lambda: served.recommend(user, 5), lambda: served.recommend_new(basket, 5)):
    ask()  # the first call builds the look-up of ids
    start = time.perf_counter()
    listed = ask()
    assert time.perf_counter() - start < 0.5
    print([item for item, score in listed])

# %%
# Parquet has external ids in place, for a warehouse or another language.

for path in export(folder / "run", "parquet", folder / "parquet"):
    print(path.name)

# %%
# FAISS: an exact index of inner products over the items. What a user has is hidden by a selector.
# Trade exactness for speed with another index over the same rows.

import faiss

export(folder / "run", "faiss", folder / "faiss")
index = faiss.read_index(str(folder / "faiss" / "items.faiss"))
names = json.loads((folder / "faiss" / "vocabulary.json").read_text())
own = [names["items"].index(item) for item in basket]
hidden = faiss.SearchParameters(sel=faiss.IDSelectorNot(faiss.IDSelectorBatch(np.array(own))))
query = served.fold_in(basket).numpy()[None]
_, found = index.search(query, 5, params=hidden)
print([names["items"][place] for place in found[0]])

# %%
# ONNX: embeddings of users, known or folded in, and the items to hide go in; lists come out. Any
# runtime does; this one comes with the package ``onnx``.

import onnx
from onnx.reference import ReferenceEvaluator

export(folder / "run", "onnx", folder / "onnx")
model = ReferenceEvaluator(onnx.load(folder / "onnx" / "recommend.onnx"))
asked = {"embedding": query, "hidden": np.array([own]), "k": np.array([5])}
score, found = model.run(["score", "item"], asked)
print([names["items"][place] for place in found[0]])
