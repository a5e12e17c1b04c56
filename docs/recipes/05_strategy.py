"""
Write a strategy
================

A strategy says what a new block does to a model. Those that are one model share
:class:`~ccdgraph.continual.incremental.Incremental`; a regulariser is a part beside the loss of the
interactions. ``ccdgraph new strategy MyStrategy`` writes such a file with its test, and
:doc:`/strategies` goes on from here.
"""

from dataclasses import dataclass

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.data import synthetic_stream
from ccdgraph.evaluate import evaluate_block
from ccdgraph.nn import BackboneConfig
from ccdgraph.nn.backbone import rows
from ccdgraph.testing import check_strategy
from ccdgraph.train import FitConfig, Part, Term, embed


class Keep(Term):
    """Squared distance of users to what they were, a sum over the batch."""

    def __init__(self, old):
        super().__init__()
        self.old = old.detach()

    def forward(self, out, batch):
        user = batch.user[batch.user < self.old.num_users]
        return (rows(out.user, user) - self.old.user[user]).square().sum()


@dataclass(frozen=True)
class AnchoredConfig(IncrementalConfig):
    weight: float = 1.0


class Anchored(Incremental[AnchoredConfig]):
    """Fine-tuning that keeps users near what they were."""

    def __init__(self, config: AnchoredConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def parts(self, scene, previous):
        return [Part(Keep(embed(previous, scene.known.before)), None, self.config.weight)]


# %%
# The contract: reproducible bit by bit, blind to later blocks and test rows, resumable.

tiny = AnchoredConfig(backbone=BackboneConfig("MF", 4), fit=FitConfig(epochs=2))
check_strategy(lambda stream: Anchored(tiny))

# %%
# What it does to old blocks and to the new one, measured on validation rows.

stream = synthetic_stream(300, 200, 8000, num_blocks=2)
for weight in (0.0, 1.0, 10.0):
    fit = FitConfig(epochs=10, lr=1e-2)
    settings = AnchoredConfig(backbone=BackboneConfig(dim=8), fit=fit, weight=weight)
    learner = Anchored(settings)
    for block in stream:
        served = learner.update(block)
    found = [
        evaluate_block(served, stream, tested=j, learnt=2, split="valid", ks=(20,))["all"].mean()
        for j in range(3)
    ]
    print(weight, [round(measured["recall@20"], 3) for measured in found])
