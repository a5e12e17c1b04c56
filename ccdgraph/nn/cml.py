"""CML: users and items as points of a ball, scored by their distance."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone


class CML(Backbone):
    r"""Collaborative metric learning: the score of a pair is minus its squared distance.

    .. math:: s(u, i) = -\lVert x_u - x_i \rVert^2 =
        \big\langle (2 x_u, 1, -\lVert x_u \rVert^2),\, (x_i, -\lVert x_i \rVert^2, 1) \big\rangle,
        \qquad \lVert x \rVert \le 1

    Two columns more make the distance an inner product, so that whatever reads embeddings reads
    these. The tables are learnt outside of the ball as well and scaled back onto it where they are
    read. Trained by :class:`~ccdgraph.objective.Hinge`. Hsieh et al., *Collaborative Metric
    Learning*, WWW 2017, https://doi.org/10.1145/3038912.3052639. Deviations: neither rank-based
    weights nor the covariance penalty; negatives are uniform.
    """

    loss = "hinge"

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        """The table rows, those outside of the unit ball scaled onto it, ``[U + I, D]``."""
        inside: Tensor = x / x.norm(dim=1, keepdim=True).clamp(min=1)
        return inside

    def readout(self, layers: list[Tensor]) -> Tensor:
        """Rows whose inner products are minus the squared distances, ``[U + I, D + 2]``."""
        user, item = layers[-1].split([self.num_users, self.num_items])
        far_user, far_item = (-x.square().sum(1, keepdim=True) for x in (user, item))
        one_user, one_item = (torch.ones_like(far) for far in (far_user, far_item))
        return torch.cat(
            [
                torch.cat([2 * user, one_user, far_user], dim=1),
                torch.cat([item, far_item, one_item], dim=1),
            ]
        )
