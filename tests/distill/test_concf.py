import copy
import math

import pytest
import torch
from planted import double, embeddings, everyone, generator, leaves, triplets, user_items
from torch.nn import functional

from ccdgraph.distill.balance import gradnorm
from ccdgraph.distill.concf import ConCF
from ccdgraph.distill.consensus import agreed
from ccdgraph.distill.heads import BCE, BPR, CML, ITEMS, MSE, USERS, Heads, pairwise_loss
from ccdgraph.losses import relaxed_ranking
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term

DIM = 8
PAIRS = [(0, 1), (0, 4), (1, 0), (3, 1), (3, 2), (3, 7), (5, 7), *((2, i) for i in range(8))]
SEEN = user_items(PAIRS)


def make(**options) -> ConCF:
    options = {"k": 4, "depth": 6, "weight": 0.3, **options}
    return ConCF(SEEN, DIM, generator=generator(7), **options)


def agreeing(**options) -> ConCF:
    """A term that has a consensus, in evaluation mode."""
    term = make(**options).eval()
    term.epoch = 99
    term.look(embeddings(DIM, 3))
    return term


def code(heads: Heads, head: int, row):
    """One row through one head's network, layer by layer."""
    first, last = heads.bottom[head][0], heads.bottom[head][3]
    x = last.weight @ (first.weight @ row + first.bias).relu() + last.bias
    if head in (BPR, CML):
        x = heads.top[head].weight @ x + heads.top[head].bias
    return x / max(1.0, float(x.detach().norm())) if head == CML else x


def score(heads: Heads, head: int, out: Embeddings, u: int, i: int):
    a, b = code(heads, head, out.user[u]), code(heads, head, out.item[i])
    top = heads.top[head]
    if head == BPR:
        return (a * b).sum()
    if head == CML:
        return -((a - b) ** 2).sum()
    if head in (BCE, MSE):
        return (top.weight[0] * a * b).sum() + top.bias[0]
    if head == USERS:
        return top.weight[i] @ a + top.bias[i]
    return top.weight[u] @ b + top.bias[u]


def own_losses(term: ConCF, out: Embeddings, batch: Triplets) -> list:
    """The six losses, one triplet, user or item at a time."""
    heads, total = term.heads, [0.0] * 6
    for u, i, j in zip(batch.user, batch.positive, batch.negative[:, 0], strict=True):
        good = [score(heads, h, out, u, i) for h in range(4)]
        bad = [score(heads, h, out, u, j) for h in range(4)]
        total[0] = total[0] - (good[0] - bad[0]).sigmoid().log()
        total[1] = total[1] + (1 - good[1] + bad[1]).clamp(min=0)
        total[2] = total[2] - good[2].sigmoid().log() - (1 - bad[2].sigmoid()).log()
        total[3] = total[3] + (good[3] - 1) ** 2 + bad[3] ** 2
    for u in batch.user.unique().tolist():
        share = torch.stack([score(heads, USERS, out, u, i) for i in range(8)]).softmax(0)
        total[4] = total[4] - sum(share[i].log() for owner, i in PAIRS if owner == u)
    for i in torch.cat([batch.positive, batch.negative[:, 0]]).unique().tolist():
        share = torch.stack([score(heads, ITEMS, out, u, i) for u in range(6)]).softmax(0)
        total[5] = total[5] - sum(share[u].log() for u, item in PAIRS if item == i)
    return total


def agreements(term: ConCF, out: Embeddings, batch: Triplets) -> list:
    """How far five heads are from the consensus, one user at a time."""
    total = [0.0] * 5
    for u in batch.user.unique().tolist():
        target, half = term.targets[u].tolist(), term.k // 2
        for head in range(5):
            values = [score(term.heads, head, out, u, i) if i >= 0 else None for i in target]
            listed = [v for v in values[:half] if v is not None]
            rest = [v.exp() for v in values[half:] if v is not None]
            for place, value in enumerate(listed):
                below = sum(v.exp() for v in listed[place:]) + sum(rest)
                total[head] = total[head] - (value.exp() / below).log()
    return total


def test_the_heads_losses_equal_loops():
    term, out, batch = make(weight=0.0).eval().double(), double(embeddings(DIM)), triplets()
    term.weight.data = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5, 0.75]).double()
    expected = sum(w * x for w, x in zip(term.weight, own_losses(term, out, batch), strict=True))
    torch.testing.assert_close(term(out, batch), expected)


def test_pairwise_losses_by_hand():
    """Scores 2 and -3 of one pair and its negative, and of one that is ranked wrong by 1."""
    good, bad = torch.tensor([2.0, 0.0]), torch.tensor([[-3.0], [1.0]])
    expected = {
        BPR: math.log(1 + math.exp(-5)) + math.log(1 + math.e),
        CML: 0.0 + 2.0,  # beyond the margin of 1 nothing is lost
        BCE: math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3)) + math.log(2 + 2 * math.e),
        MSE: 1.0 + 9.0 + 1.0 + 1.0,
    }
    for head, value in expected.items():
        assert float(pairwise_loss(head, good, bad)) == pytest.approx(value)


def test_the_agreement_equals_a_loop_and_is_clipped_by_weight():
    term = agreeing().double()
    out, batch = double(embeddings(DIM)), triplets()
    term.weight.data = torch.tensor([0.1, 3.0, 1.0, 0.7, 1.2, 0.0]).double()
    expected = sum(w * x for w, x in zip(term.weight, own_losses(term, out, batch), strict=True))
    clipped = [0.5, 2.0, 1.0, 0.7, 1.2]
    pulls = agreements(term, out, batch)
    expected = expected + 0.3 * sum(w * x for w, x in zip(clipped, pulls, strict=True))
    torch.testing.assert_close(term(out, batch), expected)


@pytest.mark.parametrize("head", range(6))
def test_served_embeddings_rank_as_the_head_scores(head):
    heads, out = Heads(6, 8, DIM, generator=generator(2)).eval(), embeddings(DIM)
    served = heads.served(head, out).scores(torch.arange(6))
    plain = torch.tensor(
        [[float(score(heads, head, out, u, i).detach()) for i in range(8)] for u in range(6)]
    )
    if head == ITEMS:
        plain = plain.log_softmax(0)
    difference = served - plain  # a constant for each user
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))


def test_network_widths_are_those_of_the_released_code():
    heads = Heads(10, 12, 64, generator=generator())
    assert [tuple(p.shape) for p in heads.bottom[0].parameters()] == [
        *((32, 64), (32,)),
        *((16, 32), (16,)),
    ]
    sizes = [tuple(layer.weight.shape) for layer in heads.top]
    assert sizes == [(16, 16), (16, 16), (1, 16), (1, 16), (12, 16), (10, 16)]


def test_the_weights_gradient_equals_double_backward():
    """The objective of GradNorm, differentiated twice by autograd."""
    term, batch, out = agreeing().double(), triplets(), double(embeddings(DIM))
    term.weight.data = torch.tensor([0.9, 2.0, 1.0, 0.3, 1.2, 0.6]).double()
    term.initial = torch.tensor([3.0, 1.0, 4.0, 2.0, 9.0, 5.0]).double()
    term.epoch = 60
    leaf, weight = leaves(out), term.weight.detach().clone().requires_grad_()
    own = own_losses(term, leaf, batch)
    pulls = [*(0.3 * x for x in agreements(term, leaf, batch)), 0.0]
    clipped, norms = weight.detach().clamp(0.5, 2), []
    for head, (share_user, share_item) in enumerate([(1, 0.5)] * 4 + [(1, 0), (0, 0.5)]):
        total = weight[head] * own[head] + clipped[head] * pulls[head]
        grads = torch.autograd.grad(
            total, (leaf.user, leaf.item), create_graph=True, allow_unused=True
        )
        norms.append(
            sum(s * g.norm() for s, g in zip((share_user, share_item), grads, strict=True) if s)
        )
    norms = torch.stack(norms)
    rate = weight.detach() * torch.stack(own).detach() / term.initial
    target = (norms.mean() * (rate / rate.mean()) ** 0.15).detach()
    expected = torch.autograd.grad((norms - target).abs().sum(), weight)[0]
    term.train()
    for module in term.modules():  # dropout would draw
        module.training = module is term
    term.weight.data = weight.detach() * 6 / weight.detach().sum()
    scale = float(weight.detach().sum()) / 6
    assert scale == pytest.approx(1.0)
    grads = torch.autograd.grad(term(leaf, batch), term.weight)[0]
    torch.testing.assert_close(grads, expected)


def test_gradnorm_by_hand():
    """Norms 3 |w g| = 3 and 1 of mean 2 and equal rates: the first falls, the second grows."""
    own = torch.tensor([[9.0], [1.0]])
    fixed = torch.zeros(2, 2, 1)
    assert gradnorm(own, fixed, torch.ones(2), torch.ones(2)).tolist() == [3.0, -1.0]


def test_a_loss_that_reaches_nothing_gets_no_weight_gradient():
    own, fixed = torch.tensor([[0.0], [1.0]]), torch.zeros(2, 2, 1)
    assert gradnorm(own, fixed, torch.ones(2), torch.ones(2)).tolist() == [0.0, 1.0]


def test_balancing_changes_neither_value_nor_other_gradients():
    """The released code lets GradNorm's objective leak into the model."""
    out, batch, grads = leaves(embeddings(DIM)), triplets(), []
    for training in (False, True):
        term = agreeing(dropout=0.0).train(training)
        loss = term(out, batch)
        leaf = (out.user, out.item, *term.heads.parameters())
        grads.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    torch.testing.assert_close(grads[0], grads[1])


def test_weights_are_rescaled_to_mean_one_and_stay_positive():
    term = make()
    term.weight.data = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    term(leaves(embeddings(DIM)), triplets())
    assert term.weight.tolist() == pytest.approx([4.5, 0.5, 0.5, 0.5, 0.5, 0.01])


def test_a_consensus_by_hand():
    """Two heads, one user. Stable items beat unstable ones of the same ranks."""
    now = torch.tensor([[[5, 6, 7]], [[6, 8, 5]]], dtype=torch.int32)
    before = torch.tensor([[[5, 6, 7]], [[8, 6, 5]]], dtype=torch.int32)

    def weight(rank, sigma):
        return math.exp(-rank / 10) + math.exp(-sigma / 100)

    total = {
        5: weight(0, 0) + weight(2, 0),
        6: weight(1, 0) + weight(0, 0.5),
        7: weight(2, 0),
        8: weight(1, 0.5),
    }
    best = sorted(total, key=lambda i: -total[i])
    assert agreed([before, now], 3).tolist() == [best[:3]]


def test_looks_and_consensus_follow_the_schedule():
    term, out, seen = make(every=10, start=20), leaves(embeddings(DIM)), []
    for epoch in range(42):
        term.begin_epoch(epoch)
        for _ in range(2):
            term(out, triplets())
        seen.append((len(term.looks), term.targets is not None))
    assert seen[0] == (0, False) and seen[1] == seen[10] == (1, False)
    assert seen[20] == (2, False) and seen[21] == (3, True) and seen[41] == (5, True)
    assert term.looks[0].shape == (6, 6, 6)


def test_targets_are_unseen_and_padded():
    targets = agreeing().targets
    known = {(u, i) for u, i in PAIRS}
    assert not any((u, i) in known for u, row in enumerate(targets.tolist()) for i in row)
    assert targets[2].tolist() == [-1] * 4  # the user who has seen everything


def test_without_weight_there_is_no_consensus():
    assert agreeing(weight=0.0).targets is None


@pytest.mark.parametrize("with_consensus", [False, True])
def test_contract(with_consensus):
    term = (agreeing() if with_consensus else make().eval()).eval()
    check_term(term, embeddings(DIM), triplets(), wrt=("user", "item"))
    term = copy.deepcopy(term).double()
    layers = [p for name, p in term.named_parameters() if name != "weight"]
    out = double(embeddings(DIM))
    assert torch.autograd.gradcheck(
        lambda *_: term(out, triplets()), layers, nondet_tol=1e-10, fast_mode=True
    )


def test_large_scores_stay_finite_while_balancing():
    term = agreeing().train()
    out = embeddings(DIM)
    out = leaves(Embeddings(out.user * 1e3, out.item * 1e3))
    loss = term(out, triplets())
    grads = torch.autograd.grad(loss, [out.user, out.item, *term.parameters()])
    assert loss.isfinite() and all(g.isfinite().all() for g in grads)


def test_a_loss_that_begins_at_zero_leaves_the_weights_finite():
    term, out = make(dropout=0.0), leaves(embeddings(DIM))
    term.initial, term.epoch = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0]), 60
    assert torch.autograd.grad(term(out, triplets()), term.weight)[0].isfinite().all()


def test_a_batch_of_one_row():
    batch = Triplets(torch.tensor([2]), torch.tensor([0]), torch.tensor([[0]]))
    assert agreeing().train()(leaves(embeddings(DIM)), batch).isfinite()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="'k' is 4 and 'depth' 3, expected 2 <= k <= depth"):
        make(depth=3)
    with pytest.raises(ValueError, match="width 9, 'dim' is 8"):
        make()(embeddings(9), triplets())
    with pytest.raises(ValueError, match="student has 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())
    with pytest.raises(ValueError, match="'dim' is 3, expected 4 or more"):
        ConCF(SEEN, 3, generator=generator())
    broken = embeddings(DIM)
    broken.user[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        agreeing().look(broken)


def test_heads_come_to_agree():
    """A planted consensus, turned round in the mutation, is what every head learns to rank."""
    planted = torch.stack([torch.randperm(8, generator=generator(s))[:4] for s in range(6)])
    fits = []
    for targets in (planted, planted.flip(1)):
        term = make(weight=5.0, dropout=0.0).eval()
        term.targets = targets
        user, item = (x.requires_grad_() for x in (embeddings(DIM).user, embeddings(DIM).item))
        optimizer = torch.optim.Adam([user, item, *term.parameters()], lr=0.02)
        out = Embeddings(user, item)
        for _ in range(80):
            optimizer.zero_grad()
            term(out, everyone()).backward()
            optimizer.step()
        row = torch.arange(6).unsqueeze(1)
        served = [term.served(out.detach(), head).pairs(row, planted).detach() for head in range(5)]
        fits.append([float((s[:, :2].mean(1) > s[:, 2:].mean(1)).float().mean()) for s in served])
    assert min(fits[0]) > 0.9 and max(fits[1]) < 0.3


def test_relaxed_ranking_of_a_consensus_ignores_padding():
    scores = torch.tensor([[1.0, 0.0]])
    real = torch.tensor([[True, False]])
    alone = relaxed_ranking(scores[:, :1], torch.tensor([0.5]))
    torch.testing.assert_close(relaxed_ranking(scores, torch.tensor([0.5]), real), alone)
    assert functional.softplus(torch.tensor(-0.5)) == pytest.approx(float(alone))


def test_a_head_alone_is_bpr_on_its_scores():
    """Mutation: a weight, or another head beside it."""
    term, out, batch = make(alone=True).eval().double(), double(embeddings(DIM)), triplets()
    term.weight.data = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5, 0.75]).double()
    torch.testing.assert_close(term(out, batch), torch.as_tensor(own_losses(term, out, batch)[BPR]))


def test_the_ensemble_is_the_consensus_of_a_further_look():
    term, out = agreeing(), embeddings(DIM, 4)
    lists, held = term.ensemble(out), len(term.looks)
    term.look(out)
    assert torch.equal(lists, term.targets) and len(term.looks) == held + 1
