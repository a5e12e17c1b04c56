"""Orthogonal alignment: a refreshed teacher's embeddings turned back to where they were."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.nn.backbone import Embeddings


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    r"""The orthogonal map that brings ``source`` closest to ``target``, ``[D, D]``.

    .. math:: Q = \arg\min_{Q^\top Q = I} \lVert X Q - Y \rVert_F = U V^\top, \qquad
        X^\top Y = U \Sigma V^\top

    Schönemann, *A generalized solution of the orthogonal Procrustes problem*, Psychometrika 1966,
    https://doi.org/10.1007/BF02289451.

    Args:
        source: ``[N, D]``.
        target: the same entities, ``[N, D]``.

    >>> procrustes(torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])).round().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    if source.shape != target.shape:
        raise ValueError(
            f"'source' has shape {tuple(source.shape)}, 'target' {tuple(target.shape)}; both need "
            "a row for the same entities, of one width"
        )
    left, _, right = torch.linalg.svd(source.double().T @ target.double())
    turn: Tensor = (left @ right).to(source.dtype)
    return turn


def aligned(refreshed: Embeddings, before: Embeddings) -> Embeddings:
    """``refreshed`` in the coordinates of ``before``; all of its scores stay as they are.

    One map turns users and items, fitted on those that ``before`` knows, so that what a student
    learnt to read off the older embeddings it reads off the refreshed ones as well. Layers are
    left out.

    Args:
        refreshed: of the teacher as it is now, over at least the entities of ``before``.
        before: of the same teacher earlier, of the same width.
    """
    num_users, num_items = before.num_users, before.num_items
    if refreshed.num_users < num_users or refreshed.num_items < num_items:
        raise ValueError(
            f"'refreshed' covers {refreshed.num_users} users and {refreshed.num_items} items, "
            f"'before' {num_users} and {num_items}; pass the older embeddings as 'before'"
        )
    now = torch.cat([refreshed.user[:num_users], refreshed.item[:num_items]])
    turn = procrustes(now, torch.cat([before.user, before.item]))
    return Embeddings(refreshed.user @ turn, refreshed.item @ turn)
