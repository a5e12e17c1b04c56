"""Matrix factorisation: the backbone that ignores the graph."""

from torch import Tensor

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone


class MF(Backbone):
    """Matrix factorisation; the score of a pair is the inner product of its table rows.

    Koren et al., *Matrix Factorization Techniques for Recommender Systems*, Computer 2009; with
    the BPR loss, Rendle et al., UAI 2009, https://arxiv.org/abs/1205.2618.
    """

    depth = 0

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        """The table rows as they are, ``[U + I, D]``."""
        return x
