"""GradNorm in closed form: weights under which several losses train at the same rate."""

from __future__ import annotations

import torch
from torch import Tensor


def gradnorm(
    own: Tensor, fixed: Tensor, weight: Tensor, rate: Tensor, *, power: float = 0.15
) -> Tensor:
    r"""Gradient with respect to the weights that makes gradient norms follow training rates.

    .. math:: F(w) = \sum_h \big\lvert G_h - \mathrm{sg}(\bar G \rho_h^{p}) \big\rvert, \qquad
        G_h = \sum_p \lVert w_h g_h^{(p)} + c_h^{(p)} \rVert, \qquad
        \frac{\partial G_h}{\partial w_h} = \sum_p
        \frac{\langle g_h^{(p)}, w_h g_h^{(p)} + c_h^{(p)} \rangle}
        {\lVert w_h g_h^{(p)} + c_h^{(p)} \rVert}

    with :math:`\rho` the rate over its mean, so no second backward pass is needed: all that enters
    are inner products of first-order gradients. Chen et al., *GradNorm*, ICML 2018,
    https://arxiv.org/abs/1711.02257.

    Args:
        own: :math:`\lVert g \rVert^2` of each loss ``H`` and parameter ``P``, times the square of
            the parameter's share, ``[H, P]``.
        fixed: :math:`\langle g, c \rangle` and :math:`\lVert c \rVert^2`, scaled alike,
            ``[2, H, P]``.
        weight: ``w [H]``.
        rate: how far each loss has fallen, larger is slower, ``[H]``.
        power: how strongly slow losses are favoured.

    Returns:
        The gradient of ``F``, ``[H]``.
    """
    cross, square = fixed
    column = weight.unsqueeze(1)
    norm = (column.square() * own + 2 * column * cross + square).clamp(min=0).sqrt()
    # A parameter that a loss does not reach has norm 0 and adds nothing.
    slope = torch.where(norm > 0, (column * own + cross) / norm.masked_fill(norm == 0, 1.0), 0.0)
    total = norm.sum(1)
    target = total.mean() * (rate / rate.mean()) ** power
    gradient: Tensor = (total - target).sign() * slope.sum(1)
    return gradient
