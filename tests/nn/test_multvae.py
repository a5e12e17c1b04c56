import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import ItemMultVAE, MultVAE, multvae
from ccdgraph.sampling import Entities
from ccdgraph.train import MultinomialVAE

USERS, ITEMS, WIDTH, LATENT = 9, 7, 5, 3


def graph_of(num_users: int = USERS) -> BipartiteGraph:
    """Weighted random pairs; the last user and the last item are isolated."""
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randint(n - 1, (30,), generator=generator) for n in (num_users, ITEMS))
    weight = torch.rand(30, generator=generator) + 0.1
    return BipartiteGraph.from_interactions(
        Interactions(user, item), num_users, ITEMS, weight=weight
    )


def model_of(**options: float) -> MultVAE:
    """Every parameter random, the biases too."""
    generator = torch.Generator().manual_seed(1)
    model = MultVAE(USERS, ITEMS, WIDTH, latent=LATENT, generator=generator, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def dense_rows(graph: BipartiteGraph) -> Tensor:
    out = torch.zeros(graph.num_users, graph.num_items)
    triples = zip(graph.user.tolist(), graph.item.tolist(), graph.weight.tolist(), strict=True)
    for user, item, weight in triples:
        out[user, item] = weight
    return out


def encode(model: MultVAE, row: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of one input row, already normalised and dropped out ``[I]``."""
    hidden = model.encoder_bias.clone()
    for item, weight in enumerate(row):
        hidden = hidden + weight * model.encoder[item]
    both = model.posterior.T @ hidden.tanh() + model.posterior_bias
    return both[:LATENT], both[LATENT:]


def decode(model: MultVAE, code: Tensor) -> Tensor:
    hidden = (model.hidden.T @ code + model.hidden_bias).tanh()
    return torch.stack(
        [
            (hidden * row).sum() + bias
            for row, bias in zip(model.decoder, model.bias[:, 0], strict=True)
        ]
    )


def unit(row: Tensor) -> Tensor:
    return row / row.norm() if row.any() else row


def test_evaluation_equals_a_loop_over_users_and_items():
    graph, model = graph_of(), model_of().eval()
    out = model(graph)
    mean, log_variance = out.posterior
    scores = out.scores(torch.arange(USERS))
    for user, row in enumerate(dense_rows(graph)):
        expected = encode(model, unit(row))
        torch.testing.assert_close(mean[user], expected[0])
        torch.testing.assert_close(log_variance[user], expected[1])
        torch.testing.assert_close(scores[user], decode(model, expected[0]))


def test_training_equals_a_loop_with_the_same_draws():
    graph, model = graph_of(), model_of(dropout=0.4).train()
    model.begin_epoch(torch.Generator().manual_seed(3))
    out = model(graph)
    draws = torch.Generator().manual_seed(3)
    keep = torch.rand(len(graph.user), generator=draws) >= 0.4
    noise = torch.randn(USERS, LATENT, generator=draws)
    kept = torch.zeros(USERS, ITEMS)
    kept[graph.user, graph.item] = keep / 0.6
    scores = out.scores(torch.arange(USERS))
    for user, row in enumerate(dense_rows(graph)):
        mean, log_variance = encode(model, unit(row) * kept[user])
        code = mean + noise[user] * (log_variance / 2).exp()
        torch.testing.assert_close(scores[user], decode(model, code))


def test_the_loss_equals_the_equation_of_the_paper():
    """Likelihood and KL of the standard normal, one user and one item at a time."""
    graph, model = graph_of(), model_of().eval()
    users = torch.tensor([4, 0, 8])
    loss = MultinomialVAE(graph, beta=0.3)(model(graph), Entities(users))
    expected = torch.zeros(())
    rows = dense_rows(graph)
    for user in users.tolist():
        mean, log_variance = encode(model, unit(rows[user]))
        scores = decode(model, mean)
        for item in range(ITEMS):
            log_probability = scores[item] - scores.exp().sum().log()
            expected = expected - rows[user, item] * log_probability
        prior = torch.distributions.Normal(torch.zeros(LATENT), torch.ones(LATENT))
        posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
        expected = expected + 0.3 * torch.distributions.kl_divergence(posterior, prior).sum()
    torch.testing.assert_close(loss, expected)


def test_the_code_is_gaussian_in_training_and_its_mean_in_evaluation():
    """Fails on uniform noise: its fourth moment is 1.8 and nothing lies beyond two deviations."""
    num_users, scale = 4000, 0.05
    model = MultVAE(num_users, ITEMS, LATENT, latent=LATENT, generator=torch.Generator())
    with torch.no_grad():
        model.posterior.zero_()
        model.posterior_bias.copy_(torch.tensor([0.5] * LATENT + [2 * torch.tensor(3.0).log()] * 3))
        model.hidden.copy_(scale * torch.eye(LATENT))
    graph = graph_of(num_users)
    model.begin_epoch(torch.Generator().manual_seed(0))
    code = model.train()(graph).user[:, :-1].detach().atanh() / scale
    noise = (code - 0.5) / 3
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.square().mean()) == pytest.approx(1, abs=0.05)
    assert float(noise.pow(4).mean()) == pytest.approx(3, abs=0.25)
    assert float((noise.abs() > 2).float().mean()) == pytest.approx(0.0455, abs=0.006)
    code = model.eval()(graph).user[:, :-1].detach().atanh() / scale
    torch.testing.assert_close(code, torch.full_like(code, 0.5))


def test_noise_follows_the_generator_of_the_epoch():
    graph, model = graph_of(), model_of().train()
    outs = []
    for seed in (0, 0, 1):
        model.begin_epoch(torch.Generator().manual_seed(seed))
        outs.append([model(graph).user.detach() for _ in range(2)])
    assert torch.equal(outs[0][0], outs[1][0]) and torch.equal(outs[0][1], outs[1][1])
    assert not torch.equal(outs[0][0], outs[0][1])  # drawn anew in every step
    assert not torch.equal(outs[0][0], outs[2][0])


def test_without_dropout_every_entry_is_read():
    graph, model = graph_of(), model_of(dropout=0.0)
    trained, evaluated = model.train()(graph).posterior, model.eval()(graph).posterior
    for ours, theirs in zip(trained, evaluated, strict=True):
        assert torch.equal(ours, theirs)


def test_dropout_keeps_the_expected_input():
    """Fails when kept entries are not scaled up: the mean would be half."""
    graph, model = graph_of(), model_of(dropout=0.5)
    with torch.no_grad():
        model.posterior.mul_(1e-3)
        model.encoder_bias.zero_()
        model.encoder.mul_(1e-2)  # the hyperbolic tangent is the identity there
    expected = model.eval()(graph).posterior[0].detach() - model.posterior_bias[:LATENT].detach()
    total = torch.zeros_like(expected)
    model.train().begin_epoch(torch.Generator().manual_seed(0))
    for _ in range(2000):
        total += model(graph).posterior[0].detach() - model.posterior_bias[:LATENT].detach()
    assert float((total / 2000 - expected).norm() / expected.norm()) < 0.05


def test_a_user_needs_no_row_of_its_own():
    model = model_of()
    assert "user" not in dict(model.named_parameters())
    other = copy.deepcopy(model)
    other.num_users = 20
    graph = graph_of(20)
    assert other.eval()(graph).user.shape == (20, WIDTH + 1)


def test_the_latent_width_is_that_of_the_hidden_layers_by_default():
    out = MultVAE(USERS, ITEMS, 4, generator=torch.Generator())(graph_of())
    assert out.posterior[0].shape == (USERS, 4) and out.user.shape == (USERS, 5)


def test_a_graph_of_another_size_is_refused():
    with pytest.raises(ValueError, match="10 users and 7 items, the backbone 9 and 7"):
        model_of()(graph_of(10))


def test_item_rows_equal_a_loop_over_items_and_users():
    """Fails where the order of a user's items is that of the logits, which it leaves open."""
    graph = graph_of()
    model = ItemMultVAE(USERS, ITEMS, WIDTH, latent=LATENT, generator=torch.Generator()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
            )
    out, rows = model(graph), dense_rows(graph).T
    scores = out.scores(torch.arange(USERS))
    for item, row in enumerate(rows):
        mean, log_variance = encode(model, unit(row))
        torch.testing.assert_close(out.posterior[0][item], mean)
        torch.testing.assert_close(out.posterior[1][item], log_variance)
        logits = decode(model, mean)
        share = logits - logits.exp().sum().log()
        torch.testing.assert_close(scores[:, item], share + (row.sum() + 1).log())
    torch.testing.assert_close(out.scores(torch.tensor([2])), scores[[2]])


def test_item_rows_learn_what_user_rows_of_the_flipped_graph_learn():
    graph, index = graph_of(), torch.tensor([3, 0, 5])
    model = ItemMultVAE(USERS, ITEMS, WIDTH, dropout=0.0, generator=torch.Generator()).double()
    twin = MultVAE(ITEMS, USERS, WIDTH, dropout=0.0, generator=torch.Generator()).double()
    twin.load_state_dict(model.state_dict())
    values = []
    for own, data, rows in ((model, graph, "item"), (twin, graph.flipped, "user")):
        own.train().begin_epoch(torch.Generator().manual_seed(0))
        loss = MultinomialVAE(graph if rows == "item" else data, rows=rows)
        data = dataclasses.replace(data, weight=data.weight.double())
        value = loss(own(data), Entities(index))
        values.append([value, *torch.autograd.grad(value, list(own.parameters()))])
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_of_both_kinds_is_the_numerical_one():
    graph = dataclasses.replace(graph_of(), weight=graph_of().weight.double())
    for kind in (MultVAE, ItemMultVAE):
        model = kind(USERS, ITEMS, 3, latent=2, generator=torch.Generator()).double().eval()
        names, values = zip(*model.named_parameters(), strict=True)

        def scores(*given, model=model, names=names):
            out = torch.func.functional_call(model, dict(zip(names, given, strict=True)), (graph,))
            return out.scores(torch.tensor([0, 4]))

        assert torch.autograd.gradcheck(scores, values)


def test_the_prior_sums_are_made_by_chunks(monkeypatch):
    graph = graph_of()
    model = ItemMultVAE(USERS, ITEMS, WIDTH, generator=torch.Generator()).eval()
    whole = model(graph).item
    monkeypatch.setattr(multvae, "_CHUNK", 2 * USERS)
    torch.testing.assert_close(model(graph).item, whole)
