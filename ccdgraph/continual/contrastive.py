"""SGCT, MGCT and LWC-KD: fine-tuning that keeps old neighbours close, by contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.continual.scene import Scene
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import UserItems
from ccdgraph.data.sparse import RowMean
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.train import Part, Term, embed


@dataclass(frozen=True)
class ContrastiveConfig(IncrementalConfig):
    """Settings of :class:`Contrastive`.

    Args:
        form: ``"sgct"`` contrasts users with items in the served embeddings, ``"mgct"`` users with
            users and items with items as well, ``"lwc-kd"`` does the latter in every layer.
        weight: weight of the contrast, a mean over anchors, beside a sum over interactions.
        temperature: ``T`` of the contrast.
        mean_degree: neighbours of an entity among its own kind.
        personal: weight users by how far their interests have moved (PIW).
        num_clusters: item clusters of PIW.
    """

    form: Literal["sgct", "mgct", "lwc-kd"] = "lwc-kd"
    weight: float = 100.0
    temperature: float = 1.0
    mean_degree: float = 10.0
    personal: bool = False
    num_clusters: int = 10


class Contrastive(Incremental[ContrastiveConfig]):
    r"""Fine-tuning with the contrast of :class:`ccdgraph.continual.lwckd.LWCKD`.

    .. math:: L = L_{BPR}(D_t) + \lambda\, \tfrac{1}{L} \sum_l \big( C^l_{UI} + C^l_{IU} + C^l_{UU}
        + C^l_{II} \big)

    :math:`L_{BPR}` is a sum over the batch and each :math:`C` a mean over its anchors. SGCT has the
    first two alone. Both SGCT and MGCT have one layer: the served embeddings. With ``personal`` the
    anchors of users are weighted and :class:`ccdgraph.continual.piw.ClusterLoss` is added.

    Wang et al., *Graph Structure Aware Contrastive Knowledge Distillation for Incremental Learning
    in Recommender Systems*, CIKM 2021, https://doi.org/10.1145/3459637.3482117; PIW: Wang et al.,
    AAAI 2023, https://arxiv.org/abs/2305.01204. Differs from the released code: all neighbours and
    all others count instead of a sample; the partition function is each anchor's own, not one of
    the batch; one weight for all layers instead of one each; no clipping of the loss.
    """

    def __init__(self, config: ContrastiveConfig = ContrastiveConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def parts(self, scene: Scene, previous: Backbone) -> Sequence[Part]:
        """The contrast with the old model, and the clusters of PIW when it is personal."""
        before, config = scene.known.before, self.config
        assert before is not None, "the base block has no past"
        old = embed(previous, before)
        if config.form == "lwc-kd" and not old.layers:
            raise ValueError(
                f"'form' is 'lwc-kd' and {type(previous).__name__} has no layers; take 'mgct'"
            )
        weight = None
        if config.personal:
            draws = scene.rng("piw", "cpu")
            weight = PIW(old, num_clusters=config.num_clusters, generator=draws)
        if config.form == "sgct":
            neighbours = edges(before)
        else:
            neighbours = Neighbours.of(before, mean_degree=config.mean_degree)
        past = old if config.form == "lwc-kd" else served_layer(old)
        term: Term = LWCKD(past, neighbours, weight=weight, temperature=config.temperature)
        parts = [Part(term if config.form == "lwc-kd" else Served(term), None, config.weight)]
        if weight is not None:
            parts.append(Part(ClusterLoss(weight, torch.unique(scene.block.train.item)), None))
        return parts


class Served(Term):
    """Applies a layer-wise term to the served embeddings alone, as to the only layer.

    Args:
        term: the layer-wise term.
    """

    def __init__(self, term: Term) -> None:
        super().__init__()
        self.term = term

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        """The value of the term."""
        value: Tensor = self.term(served_layer(out), batch)
        return value


def served_layer(out: Embeddings) -> Embeddings:
    """The same embeddings with what is served as the only layer.

    >>> served_layer(Embeddings(torch.ones(1, 1), torch.zeros(1, 1))).layers[0].tolist()
    [[1.0], [0.0]]
    """
    return Embeddings(out.user, out.item, (torch.cat([out.user, out.item]),))


def edges(graph: BipartiteGraph) -> Neighbours:
    """Neighbours along the edges of ``graph``; nobody has one of its own kind."""

    def nobody(size: int) -> RowMean:
        none = graph.user.new_zeros(size + 1)
        return RowMean(UserItems(none, none[:0], size))

    return Neighbours(
        RowMean(graph.user_items),
        RowMean(graph.item_users),
        nobody(graph.num_users),
        nobody(graph.num_items),
    )
