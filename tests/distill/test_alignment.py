import pytest
import torch
from planted import embeddings, generator

from ccdgraph.distill.alignment import aligned, procrustes
from ccdgraph.nn import Embeddings


def rotation(dim: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator(3))).Q


def test_a_planted_rotation_is_undone():
    x, turn = torch.randn(20, 4, generator=generator()), rotation(4)
    torch.testing.assert_close(procrustes(x @ turn, x), turn.T)


def test_no_other_orthogonal_map_is_closer():
    draw = generator(1)
    x, y = torch.randn(2, 12, 3, generator=draw)
    best = procrustes(x, y)
    torch.testing.assert_close(best.T @ best, torch.eye(3))
    least = (x @ best - y).norm()
    for _ in range(200):
        other = torch.linalg.qr(torch.randn(3, 3, generator=draw)).Q
        assert least <= (x @ other - y).norm()


def test_a_refreshed_teacher_keeps_its_scores_and_comes_back():
    """Fitting users and items each their own map would change the scores, and fails."""
    before, turn = embeddings(4), rotation(4)
    new = torch.randn(2, 4, generator=generator(5))
    refreshed = Embeddings(torch.cat([before.user, new]) @ turn, before.item @ turn)
    back, everyone = aligned(refreshed, before), torch.arange(refreshed.num_users)
    torch.testing.assert_close(back.user[: before.num_users], before.user)
    torch.testing.assert_close(back.item, before.item)
    torch.testing.assert_close(back.scores(everyone), refreshed.scores(everyone))


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="'refreshed' covers 6 users and 8 items, 'before' 7"):
        aligned(embeddings(4), embeddings(4, users=7))
    with pytest.raises(ValueError, match=r"'source' has shape \(6, 4\), 'target' \(6, 3\)"):
        procrustes(embeddings(4).user, embeddings(3).user)
