import torch
from small_ccd import stream, with_settings

from ccdgraph.continual import CCD, stages
from ccdgraph.continual.exclusions import exclusions
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Embeddings


def test_keys_are_the_seen_and_the_best_unseen_of_every_scorer():
    seen = UserItems.from_interactions(
        [Interactions(torch.tensor([0, 1]), torch.tensor([2, 0]))], 3, 4
    )
    scores = torch.tensor([[1.0, 2.0, 9.0, 4.0], [8.0, 5.0, 7.0, 6.0]])
    smaller = Embeddings(torch.eye(2), scores.T)  # it does not know user 2
    # User 0 has seen item 2 and gets 3 and 1; user 1 has seen 0 and gets 2 and 3.
    expected = [0 * 4 + 1, 0 * 4 + 2, 0 * 4 + 3, 1 * 4 + 0, 1 * 4 + 2, 1 * 4 + 3]
    assert exclusions(seen, [smaller], 2, torch.arange(3)).tolist() == expected


def test_more_keys_and_no_scorer():
    seen = UserItems.from_interactions([Interactions(torch.tensor([0]), torch.tensor([1]))], 1, 3)
    assert exclusions(seen, [], 2, torch.arange(1), torch.tensor([2, 1])).tolist() == [1, 2]


def test_what_students_and_proxies_list_is_no_negative_of_a_block(monkeypatch):
    """Both stages hand the same four scorers on; leaving one out, or the setting, fails."""
    asked = {}

    def spy(scene, others, k):
        asked[scene.seed[2]] = (len(list(others)), k)
        return real(scene, others, k)

    real = stages.unlisted
    monkeypatch.setattr("ccdgraph.continual.stages.unlisted", spy)
    monkeypatch.setattr("ccdgraph.continual.ccd.unlisted", spy)
    learner = CCD(with_settings({"update.exclude_listed": 3, "teacher.exclude_listed": 4}))
    for block in stream()[:2]:
        learner.update(block)
    assert asked == {"student": (4, 3), "teacher": (4, 4)}
