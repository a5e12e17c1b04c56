"""Clusters of embeddings by k-means."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def kmeans(
    points: Tensor, num_clusters: int, *, rounds: int = 10, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Centres ``[K, D]`` and the cluster of every point ``[N]``, by Lloyd's rounds.

    Centres start at distinct random points; one that loses all its points stays where it is.

    Args:
        points: ``[N, D]``.
        num_clusters: ``K``; no more than there are points.
        rounds: assignments and means, at most; it ends earlier where nothing changes.
        generator: source of the first centres, on the CPU.

    >>> points = torch.tensor([[0.0], [0.2], [9.0], [9.2]])
    >>> centre, cluster = kmeans(points, 2, generator=torch.Generator().manual_seed(1))
    >>> sorted(centre.flatten().tolist()), bool(cluster[0] == cluster[1])
    ([0.1..., 9.1...], True)
    """
    chosen = torch.randperm(len(points), generator=generator)[:num_clusters]
    centre = points[chosen.to(points.device)].clone()
    cluster = torch.cdist(points, centre).argmin(1)
    for _ in range(rounds):
        count = torch.bincount(cluster, minlength=len(centre))
        total = torch.zeros_like(centre).index_add_(0, cluster, points)
        mean = total / count.clamp(min=1).unsqueeze(1)
        centre = torch.where(count.unsqueeze(1) > 0, mean, centre)
        nearest = torch.cdist(points, centre).argmin(1)
        if torch.equal(nearest, cluster):
            break
        cluster = nearest
    return centre, cluster
