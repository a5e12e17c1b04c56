import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT

from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import GNN, MF, Backbone, Embeddings, LightGCN, MultVAE
from ccdgraph.sampling import Entities, EntityBatches, Pairs, TripletBatches, Triplets
from ccdgraph.train import (
    BPR,
    FitConfig,
    FitResult,
    MultinomialVAE,
    Objective,
    Part,
    SoftBCE,
    Term,
    embed,
    fit,
)

USERS, ITEMS = 8, 6
EVENTS = Interactions(
    torch.tensor([0, 0, 1, 2, 2, 3, 4, 5, 6, 6]), torch.tensor([0, 1, 1, 2, 3, 4, 0, 3, 2, 4])
)
GRAPH = BipartiteGraph.from_interactions(EVENTS, USERS, ITEMS)
STILL = FitConfig(epochs=3, lr=0.0, weight_decay=0.0)


def model_of(kind: Callable[..., Backbone] = MF, seed: int = 0, **options: Any) -> Backbone:
    generator = torch.Generator().manual_seed(seed)
    return kind(USERS, ITEMS, 4, std=0.3, generator=generator, **options)


def triplets(batch_size: int = 4) -> TripletBatches:
    exclude, generator = GRAPH.user_items.keys(), torch.Generator().manual_seed(1)
    return TripletBatches(EVENTS, ITEMS, exclude, batch_size=batch_size, generator=generator)


def ranking() -> list[Objective]:
    return [Objective((Part(BPR(), triplets()),))]


def reconstruction() -> list[Objective]:
    generator = torch.Generator().manual_seed(2)
    users = EntityBatches(torch.arange(USERS), batch_size=3, generator=generator)
    return [Objective((Part(MultinomialVAE(GRAPH), users),))]


class Source:
    """So many numbered batches an epoch; keeps what it was asked."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.asked: list[int] = []
        self.seen: list[Embeddings] = []

    def epoch(self, epoch: int, current: Callable[[], Embeddings]) -> Iterator[int]:
        self.asked.append(epoch)
        self.seen.append(current())
        yield from range(self.num)


class Logs(Term):
    """A constant that touches the model; keeps every call in a shared log."""

    def __init__(self, log: list[Any], name: str = "", value: float = 1.0) -> None:
        super().__init__()
        self.log, self.name, self.value = log, name, value

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        self.log.append((self.name, batch))
        return out.user.sum() * 0 + self.value

    def begin_epoch(self, epoch: int) -> None:
        self.log.append((self.name, f"epoch {epoch}"))


def states_equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_ranking_terms_equal_loops_over_scores():
    out = model_of()(GRAPH)
    scores = out.user @ out.item.T
    user, item = torch.tensor([3, 0]), torch.tensor([4, 1])
    negative = torch.tensor([[0, 1], [2, 5]])
    expected = sum(
        -torch.sigmoid(scores[user[b], item[b]] - scores[user[b], negative[b, n]]).log()
        for b in range(2)
        for n in range(2)
    )
    torch.testing.assert_close(BPR()(out, Triplets(user, item, negative)), expected)
    label = torch.tensor([0.9, 0.2])
    expected = sum(
        -label[b] * torch.sigmoid(scores[user[b], item[b]]).log()
        - (1 - label[b]) * torch.sigmoid(-scores[user[b], item[b]]).log()
        for b in range(2)
    )
    torch.testing.assert_close(SoftBCE()(out, Pairs(user, item, label)), expected)


def test_the_variational_term_needs_a_posterior():
    with pytest.raises(ValueError, match="'out' has no posterior; this term needs a variational"):
        MultinomialVAE(GRAPH)(model_of()(GRAPH), Entities(torch.tensor([0])))


@pytest.mark.parametrize("kind", [MF, LightGCN])
def test_fit_equals_a_plain_loop_of_adam(kind):
    """Fails on a sum over steps for the loss, decoupled decay, or gradients left to pile up."""
    model, twin = model_of(kind), model_of(kind)
    result = fit(model, GRAPH, ranking(), FitConfig(epochs=3, lr=0.05, weight_decay=0.01))
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05, weight_decay=0.01)
    source, means = triplets(), []
    for epoch in range(3):
        losses = []
        for batch in source.epoch(epoch):
            out = twin(GRAPH)
            scores = out.user @ out.item.T
            gap = scores[batch.user, batch.positive] - scores[batch.user, batch.negative[:, 0]]
            loss = -nn.functional.logsigmoid(gap).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    assert result.loss == pytest.approx(means, rel=1e-5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert result.valid == () and result.best_epoch == 2 and not model.training


def test_objectives_are_swept_in_order_and_parts_share_a_step():
    log: list[Any] = []
    first = Objective(
        (
            Part(Logs(log, "a"), Source(2)),
            Part(Logs(log, "b"), None),
            Part(Logs(log, "c"), Source(3)),
        )
    )
    second = Objective((Part(Logs(log, "d"), Source(1)),))
    fit(model_of(), GRAPH, [first, second], FitConfig(epochs=2, lr=0.0))
    steps = [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("c", 1)]
    expected = []
    for epoch in (0, 1):
        expected += [(name, f"epoch {epoch}") for name in "abc"] + steps
        expected += [("d", f"epoch {epoch}"), ("d", 0)]
    assert log == expected


def test_a_shorter_source_starts_over_within_the_epoch():
    log: list[Any] = []
    short = Source(2)
    parts = (Part(Logs([]), Source(5)), Part(Logs(log), short))
    fit(model_of(), GRAPH, [Objective(parts)], FitConfig(epochs=1))
    assert [batch for _, batch in log[1:]] == [0, 1, 0, 1, 0] and short.asked == [0, 0, 0]


def test_sources_see_the_model_as_it_is():
    """Replay draws by what the model ranks now; stale embeddings would show here."""
    source, model = Source(1), model_of()
    before = copy.deepcopy(model)
    objective = Objective((Part(SumOfUsers(), source),))
    fit(model, GRAPH, [objective], FitConfig(epochs=2, lr=0.5, weight_decay=0.0))
    assert torch.equal(source.seen[0].user, before.user)
    torch.testing.assert_close(source.seen[1].user, before.user.detach() - 0.5)
    assert not source.seen[1].user.requires_grad and source.asked == [0, 1]


class SumOfUsers(Term):
    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        return out.user.sum()


def test_weights_multiply_their_part_and_follow_the_epoch():
    def losses(*parts: Part) -> tuple[float, ...]:
        return fit(model_of(), GRAPH, [Objective(parts)], STILL).loss

    log: list[Any] = []
    one, two = Part(Logs(log, value=1.0), Source(2)), Logs(log, value=2.0)
    assert losses(one) == (1.0, 1.0, 1.0)
    assert losses(one, Part(two, None, 0.5)) == (2.0, 2.0, 2.0)
    assert losses(one, Part(two, None, lambda epoch: 10.0**epoch)) == (3.0, 21.0, 201.0)
    assert losses(Part(two, Source(2), lambda epoch: 0.5 * epoch)) == (0.0, 1.0, 2.0)


def test_parameters_of_terms_are_learnt():
    class Bias(Term):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, out: Embeddings, batch: Any) -> Tensor:
            return (self.bias - 1).square()

    term = Bias()
    objective = Objective((Part(Logs([]), Source(40)), Part(term, None)))
    fit(model_of(), GRAPH, [objective], FitConfig(epochs=5, lr=0.05, weight_decay=0.0))
    assert term.bias.item() == pytest.approx(1.0, abs=0.05)


def test_a_first_part_without_batches_is_refused():
    with pytest.raises(ValueError, match="first part of an objective has no 'batches'"):
        fit(model_of(), GRAPH, [Objective((Part(BPR(), None),))], FitConfig(epochs=1))


def test_an_empty_source_beside_the_first_is_refused():
    parts = (Part(Logs([]), Source(1)), Part(Logs([]), Source(0)))
    with pytest.raises(ValueError, match="'batches' is empty in epoch 0; leave the part out"):
        fit(model_of(), GRAPH, [Objective(parts)], FitConfig(epochs=1))


def validated(values: list[Any], patience: int = 0) -> tuple[FitResult, Backbone, list[Backbone]]:
    """A fit whose validation gives ``values``, and the model as it was after each epoch."""
    model, epochs = model_of(), []
    left = iter(values)

    def validate(out: Embeddings) -> Any:
        assert torch.equal(out.user, model.user) and not out.user.requires_grad
        epochs.append(copy.deepcopy(model))
        return next(left)

    config = FitConfig(epochs=len(values), lr=0.05, patience=patience)
    return fit(model, GRAPH, ranking(), config, validate=validate), model, epochs


@pytest.mark.parametrize(
    ("values", "best"), [([1, 3, 2], 1), ([3, 2, 1], 0), ([1, 2, 3], 2), ([2, 2, 2], 0)]
)
def test_validation_keeps_the_weights_of_the_first_best_epoch(values, best):
    result, model, epochs = validated(values)
    assert result.best_epoch == best and result.valid == tuple(values)
    assert len(result.loss) == 3
    assert [states_equal(model, other) for other in epochs].index(True) == best


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([5, 4, 3, 2, 1], 0, 5),
        ([5, 4, 3, 2, 1], 1, 2),
        ([5, 4, 3, 2, 1], 2, 3),
        ([1, 0, 2, 1, 1], 2, 5),
        ([1, 1, 1, 9, 9], 2, 3),
    ],
)
def test_patience_counts_epochs_since_the_best(values, patience, epochs):
    result, model, after = validated(values, patience)
    assert len(result.loss) == len(result.valid) == epochs
    assert states_equal(model, after[result.best_epoch])


def stops(values: list[tuple[float, ...]], patience: int) -> tuple[int, int]:
    """Epochs run and the epoch kept, by a rescan of all values after each epoch."""
    for epoch in range(len(values)):
        columns = list(zip(*values[: epoch + 1], strict=True))
        latest = max(
            next(e for e in range(epoch + 1) if column[e] == max(column)) for column in columns
        )
        if epoch - latest >= patience:
            break
    first = [value[0] for value in values[: epoch + 1]]
    return epoch + 1, first.index(max(first))


@pytest.mark.parametrize("seed", range(4))
def test_an_improvement_of_any_value_is_progress_and_the_first_chooses(seed):
    """Stopping on the first value alone, or keeping the epoch of another, fails."""
    draw = rng(seed, "values")
    values = [tuple(row) for row in torch.randint(9, (12, 3), generator=draw).tolist()]
    result, model, after = validated(values, patience=3)
    assert (len(result.loss), result.best_epoch) == stops(values, 3)
    assert result.valid == tuple(value[0] for value in values[: len(result.loss)])
    assert states_equal(model, after[result.best_epoch])


def test_other_values_prolong_a_training():
    values = [(3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (0.0, 2.0), (9.0, 9.0)]
    assert len(validated([value[0] for value in values], patience=1)[0].loss) == 2
    result = validated(values, patience=1)[0]
    assert len(result.loss) == 4 and result.best_epoch == 0


@pytest.mark.parametrize(("epochs", "min_steps", "taken"), [(2, 0, 2), (2, 7, 3), (5, 7, 5)])
def test_epochs_are_raised_to_reach_the_steps_of_the_first_objective(epochs, min_steps, taken):
    """Three steps an epoch; a sweep of a second objective does not count."""
    log: list[Any] = []
    objectives = [
        Objective((Part(Logs(log, "first"), Source(3)),)),
        Objective((Part(Logs(log, "second"), Source(9)),)),
    ]
    told: list[tuple[int, int]] = []
    result = fit(
        model_of(),
        GRAPH,
        objectives,
        FitConfig(epochs=epochs, min_steps=min_steps),
        on_epoch=lambda done, total, _: told.append((done, total)),
    )
    assert len(result.loss) == taken
    assert told == [(epoch + 1, taken) for epoch in range(taken)]


def test_patience_alone_stops_nothing():
    result = fit(model_of(), GRAPH, ranking(), FitConfig(epochs=4, patience=1))
    assert len(result.loss) == 4 and result.best_epoch == 3


def test_progress_is_told_after_every_epoch():
    told: list[tuple[int, int, float]] = []
    result = fit(model_of(), GRAPH, ranking(), STILL, on_epoch=lambda *x: told.append(x))
    assert told == [(n + 1, 3, loss) for n, loss in enumerate(result.loss)]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_the_fit(value):
    told: list[Any] = []
    broken = Objective((Part(Logs([], value=value), Source(1)),))
    with pytest.raises(FloatingPointError, match=rf"the loss of epoch 0 is {value}; lower 'lr'"):
        fit(model_of(), GRAPH, [broken], FitConfig(), on_epoch=lambda *x: told.append(x))
    assert not told


def test_no_epochs_leave_the_model_as_it_was():
    model = model_of()
    result = fit(model, GRAPH, ranking(), FitConfig(epochs=0))
    assert states_equal(model, model_of()) and result == FitResult((), (), -1)


DRAWING = {
    "variational": (MultVAE, reconstruction),
    "dropout": (partial(GNN, module=GAT, num_layers=2, dropout=0.5), ranking),
}


@pytest.mark.parametrize("name", DRAWING)
def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(name):
    """Fails when dropout reads the caller's global generator."""
    kind, objectives = DRAWING[name]
    models = []
    for place, seed in enumerate(((0, "a"), (0, "a"), (0, "b"))):
        models.append(model_of(kind))
        torch.manual_seed(place)
        state = torch.get_rng_state()
        fit(models[-1], GRAPH, objectives(), FitConfig(epochs=2, lr=0.01), seed=seed)
        assert torch.equal(state, torch.get_rng_state())
    assert states_equal(models[0], models[1]) and not states_equal(models[0], models[2])


@pytest.mark.parametrize("name", DRAWING)
def test_validation_and_progress_draw_nothing_from_the_fit(name):
    """An ablation that validates sees the same noise as one that does not."""
    kind, objectives = DRAWING[name]
    plain, watched = model_of(kind), model_of(kind)
    config = FitConfig(epochs=3, lr=0.01)
    fit(plain, GRAPH, objectives(), config)
    rising = iter(range(3))

    def validate(out: Embeddings) -> float:
        torch.rand(5)
        return next(rising)

    fit(watched, GRAPH, objectives(), config, validate=validate)
    assert states_equal(plain, watched)


def test_every_epoch_has_its_own_noise():
    """Fails when each epoch starts the generator of the noise anew."""
    model, seen = model_of(MultVAE, dropout=0.0), []

    class Watch(Term):
        def forward(self, out: Embeddings, batch: Any) -> Tensor:
            seen.append(out.user.detach().clone())
            return out.user.sum() * 0

    fit(model, GRAPH, [Objective((Part(Watch(), Source(2)),))], STILL)
    assert len({tuple(x.flatten().tolist()) for x in seen}) == 6


@pytest.mark.parametrize("training", [True, False])
def test_embed_is_without_noise_or_gradient_and_puts_the_mode_back(training):
    model = model_of(MultVAE).train(training)
    first, second = embed(model, GRAPH), embed(model, GRAPH)
    assert torch.equal(first.user, second.user) and not first.user.requires_grad
    assert model.training is training
    assert all(child.training is training for child in model.modules())


def test_ranking_by_interactions_learns_them():
    """Fails with positive and negative exchanged, or when the graph or the tables stay still."""
    for kind in (MF, LightGCN):
        model = model_of(kind)
        fit(model, GRAPH, ranking(), FitConfig(epochs=60, lr=0.05, weight_decay=0.0))
        scores = embed(model, GRAPH).scores(torch.arange(USERS))
        mine = torch.zeros(USERS, ITEMS, dtype=torch.bool)
        mine[EVENTS.user, EVENTS.item] = True
        for user in EVENTS.user.unique():
            assert scores[user][mine[user]].min() > scores[user][~mine[user]].max()
