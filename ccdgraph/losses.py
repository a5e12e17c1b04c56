"""Losses as pure functions of scores; sums over the batch, as the papers' weights presume."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Bayesian personalised ranking: each positive should score above its negatives.

    .. math:: \ell = -\sum_{b} \sum_{n} \log \sigma(s_b - t_{bn})

    Rendle et al., *BPR*, UAI 2009, https://arxiv.org/abs/1205.2618. A sum, not a mean.

    Args:
        positive: scores of the observed pairs ``[B]``.
        negative: scores of the sampled pairs ``[B]`` or ``[B, n]``.

    >>> float(bpr(torch.zeros(1), torch.zeros(1, 2)))  # 2 log 2
    1.3862...
    """
    if negative.dim() > positive.dim():
        positive = positive.unsqueeze(-1)
    return -functional.logsigmoid(positive - negative).sum()


def sampled_softmax(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Negative log-likelihood of each positive among itself and the negatives.

    .. math:: \ell = -\sum_b \log \frac{e^{s_b}}{e^{s_b} + \sum_n e^{t_{bn}}}

    Wu et al., *On the Effectiveness of Sampled Softmax Loss for Item Recommendation*, TOIS 2024,
    https://arxiv.org/abs/2201.02327. A sum, not a mean.

    Args:
        positive: scores of the observed pairs ``[B]``, divided by the temperature.
        negative: of sampled pairs ``[B, n]``; ``-inf`` leaves one out.

    >>> float(sampled_softmax(torch.zeros(1), torch.zeros(1, 3)))  # log 4
    1.3862...
    """
    return (torch.logaddexp(positive, negative.logsumexp(-1)) - positive).sum()


def hinge(positive: Tensor, negative: Tensor, *, margin: float = 1.0) -> Tensor:
    r"""Hinge loss: each positive should score above its negatives by a margin.

    .. math:: \ell = \sum_{b} \sum_{n} \max(m + t_{bn} - s_b, 0)

    Hsieh et al., *Collaborative Metric Learning*, WWW 2017. A sum, not a mean.

    Args:
        positive: scores of the observed pairs ``[B]``.
        negative: scores of the sampled pairs ``[B]`` or ``[B, n]``.
        margin: ``m``.

    >>> float(hinge(torch.tensor([2.0]), torch.tensor([[0.5, 3.0]])))
    2.0
    """
    if negative.dim() > positive.dim():
        positive = positive.unsqueeze(-1)
    return (margin + negative - positive).relu().sum()


def relaxed_ranking(listed: Tensor, rest: Tensor, real: Tensor | None = None) -> Tensor:
    r"""Negative log-likelihood that the listed entries come in order, before all the rest.

    .. math:: \ell = -\sum_u \sum_{k=1}^{K} \log
        \frac{e^{s_{uk}}}{\sum_{m \ge k} e^{s_{um}} + e^{b_u}}

    The order within the rest is free, so only :math:`b_u`, the log-sum-exp of its scores, enters.
    Kang et al., *DE-RRD*, CIKM 2020, https://arxiv.org/abs/2012.04357. Differs from the released
    code: log-sum-exp, so no clamping of scores. A sum over users, as there.

    Args:
        listed: student scores of the teacher's list, best first ``[B, K]``.
        rest: log-sum-exp of the student scores of the other entries ``[B]``; ``-inf`` if none.
        real: which entries of ``listed`` are not padding ``[B, K]``; all by default.

    >>> float(relaxed_ranking(torch.zeros(1, 1), torch.zeros(1)))  # log 2
    0.6931...
    """
    if real is not None:
        # Finite, so that no infinity meets another in the backward of the log-sum-exp.
        listed = listed.masked_fill(~real, torch.finfo(listed.dtype).min / 4)
    tail = listed.flip(-1).logcumsumexp(-1).flip(-1)
    loss = torch.logaddexp(tail, rest.unsqueeze(-1)) - listed
    return loss.sum() if real is None else loss.masked_fill(~real, 0.0).sum()


def soft_bce(score: Tensor, label: Tensor, real: Tensor | None = None) -> Tensor:
    r"""Binary cross-entropy of scores against labels in [0, 1].

    .. math:: \ell = -\sum_b y_b \log \sigma(s_b) + (1 - y_b) \log \sigma(-s_b)

    A sum, not a mean.

    Args:
        score: logits ``[B]``.
        label: probabilities ``[B]``.
        real: which places are not padding ``[B]``; all by default.

    >>> float(soft_bce(torch.zeros(2), torch.tensor([1.0, 0.3])))  # 2 log 2
    1.3862...
    """
    weight = None if real is None else real.to(score.dtype)
    return functional.binary_cross_entropy_with_logits(score, label, weight, reduction="sum")


def multinomial_vae(
    scores: Tensor, target: Tensor, mean: Tensor, log_variance: Tensor, beta: float
) -> Tensor:
    r"""Multinomial log-likelihood of the observed rows and beta times the KL to N(0, I), negated.

    .. math:: \ell = \sum_u \Big[ -\sum_i x_{ui} \log \mathrm{softmax}(s_u)_i +
        \frac{\beta}{2} \sum_k \big(\mu_{uk}^2 + \sigma_{uk}^2 - \log \sigma_{uk}^2 - 1\big) \Big]

    Liang et al., WWW 2018, https://arxiv.org/abs/1802.05814. A sum over users, not a mean.

    Args:
        scores: logits ``[B, I]``.
        target: weights of the observed items ``[B, I]``.
        mean: posterior means ``[B, H]``.
        log_variance: logarithm of the posterior variances ``[B, H]``.
        beta: weight of the KL term.
    """
    likelihood = (target * scores.log_softmax(-1)).sum()
    divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
    return beta * divergence - likelihood
