"""Methods by name: each becomes its term, and settings that do not fit are refused."""

import math

import pytest
import torch
from planted import embeddings, everyone, generator, leaves, user_items

from ccdgraph.config import ConfigError
from ccdgraph.distill import (
    CD,
    DE,
    FTD,
    HTD,
    IRRRD,
    PHR,
    RD,
    RRD,
    ConCF,
    HetComp,
    Regression,
    Trajectories,
)
from ccdgraph.distill.knowledge import Knowledge
from ccdgraph.distill.methods import METHODS, build_parts, check_methods, expand
from ccdgraph.distill.teacher import Ensemble, teacher_lists
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities

SEEN = user_items([(0, 1), (1, 2), (2, 2), (3, 7), (4, 0), (5, 3)])
TERMS = {
    **{"rrd": RRD, "ir": RRD, "sampled-rrd": IRRRD, "ir-rrd": IRRRD, "de": DE, "phr": PHR},
    "regression": Regression,
    **{"ftd": FTD, "htd": HTD, "rd": RD, "cd": CD, "concf": ConCF, "hetcomp": HetComp},
}
SMALL = {
    **{"rrd": {"k": 3}, "ir": {"k": 3}, "htd": {"num_groups": 2}, "rd": {"k": 3, "depth": 3}},
    "sampled-rrd": {"depth": 4, "k": 2},
    "ir-rrd": {"depth": 4, "k": 2, "k_users": 2},
    "cd": {"depth": 4, "k": 2},
    "concf": {"k": 2, "depth": 4},
    "hetcomp": {"k": 3, "compared": 2, "order": 2},
}


def knowledge(teacher=None, dim: int = 4, **options) -> Knowledge:
    teacher = embeddings(5) if teacher is None else teacher
    trajectories = Trajectories.of([[embeddings(5, 1), embeddings(5, 2)]], SEEN, k=4)
    options = {"trajectories": trajectories} | options
    return Knowledge(teacher, SEEN, dim=dim, rng=lambda use: generator(), **options)


def test_every_name_has_a_case_here():
    assert set(TERMS) == set(METHODS)


@pytest.mark.parametrize("teacher", ["single", "ensemble"])
@pytest.mark.parametrize("name", METHODS)
def test_a_name_becomes_a_term_that_a_student_learns_from(name, teacher):
    one = embeddings(5)
    known = knowledge(one if teacher == "single" else Ensemble([one, embeddings(3, 9)]))
    (part,) = build_parts([name], known, {name: {"weight": 0.25, **SMALL.get(name, {})}})
    assert type(part.term) is TERMS[name] and part.weight == 0.25
    out = leaves(embeddings(4, 5))
    batch = everyone() if part.batches is None else Entities(torch.arange(6))
    part.term.begin_epoch(0)
    part.term(out, batch).backward()
    assert out.user.grad.isfinite().all() and out.user.grad.any()


def test_settings_reach_the_term():
    de, rrd = build_parts(
        ["de-rrd"], knowledge(), {"de": {"num_experts": 7}, "sampled-rrd": {"depth": 5, "k": 3}}
    )
    assert de.term.user_experts.num_experts == 7 and de.weight == 0.01
    assert rrd.term.by_user.k == 3 and rrd.term.item_weight == 0 and rrd.weight == 1e-3


@pytest.mark.parametrize("temperature", [1.0, 30.0])
@pytest.mark.parametrize("name", ["rrd", "sampled-rrd", "hetcomp"])
def test_lists_that_the_teachers_agree_on_equal_a_loop(name, temperature):
    """The weight of a place falls with the temperature; 30 and 1 agree on different lists."""
    along = Trajectories.of(
        [[embeddings(5, m), embeddings(5, 10 + m)] for m in range(3)], SEEN, k=4
    )
    key = "temperature" if name == "hetcomp" else "consensus"
    own = SMALL[name] | {key: temperature}
    own |= {"curriculum": False} if name == "hetcomp" else {}
    (part,) = build_parts([name], knowledge(trajectories=along), {name: own})
    term = part.term
    found = {
        "rrd": lambda: term.place,
        "sampled-rrd": lambda: term.by_user.lists,
        "hetcomp": lambda: term.targets,
    }[name]()
    for user in range(6):
        total = {}
        for m in range(3):
            for place, item in enumerate(along.lists[m, -1, user].tolist()):
                total[item] = total.get(item, 0) + math.exp(-place / temperature)
        best = sorted(total, key=lambda i, total=total: (-round(total[i], 5), i))
        assert found[user].tolist() == best[: found.size(1)]


def test_hetcomp_goes_through_interactions_or_through_users():
    (part,) = build_parts(["hetcomp"], knowledge(), {"hetcomp": SMALL["hetcomp"]})
    assert part.batches is None
    own = SMALL["hetcomp"] | {"by_user": True}
    (part,) = build_parts(["hetcomp"], knowledge(), {"hetcomp": own})
    (batch,) = part.batches.epoch(0)
    assert batch.index.sort().values.tolist() == [*range(6)]


def test_a_weight_that_does_not_fall_is_refused():
    with pytest.raises(ValueError, match=r"'temperature' is -1.0, expected a number above 0"):
        build_parts(["rrd"], knowledge(), {"rrd": {"k": 3, "consensus": -1.0}})


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["rdd"], {}, "there is no distillation method 'rdd'; did you mean 'rd"),
        (["de", "de-rrd"], {}, "names a method twice"),
        (["de"], {"htd": {}}, "'methods.htd' has no effect"),
        (["de"], {"de": {"experts": 3}}, "unknown key 'methods.de.experts'; did you mean"),
        (["de"], {"de": {"num_experts": "x"}}, "'methods.de.num_experts' is the str 'x'"),
        (["htd"], {"htd": {"prototypes": "x"}}, "expected one of 'entities', 'groups'"),
        (["rrd"], {"rrd": {"side": "item"}}, "unknown key 'methods.rrd.side'"),
    ],
)
def test_names_and_settings_that_do_not_fit_are_refused(names, settings, message):
    with pytest.raises(ConfigError) as error:
        check_methods(names, settings)
    assert message in str(error.value)


def test_none_is_no_method_at_all():
    assert expand(["none"]) == () and build_parts(["none"], knowledge(), {}) == []


def test_a_shorter_list_is_cut_from_a_longer_one():
    known = knowledge()
    long, short = known.lists(5), known.lists(2)
    wanted = teacher_lists(embeddings(5), SEEN, k=2)
    assert torch.equal(short.items, wanted.items) and torch.equal(short.users, wanted.users)
    assert torch.equal(long.items[:, :2], short.items)
    assert torch.equal(known.scored(2)[1], wanted.items)


def test_members_of_an_ensemble_stand_side_by_side_at_one_scale():
    loud = embeddings(3, 1)
    loud = Embeddings(loud.user * 100, loud.item)
    out = knowledge(Ensemble([embeddings(5), loud])).embeddings()
    assert out.user.shape[1] == out.item.shape[1] == 8
    for table in (out.user, out.item):
        for part in table.split([5, 3], dim=1):
            assert float(part.square().sum(1).mean()) == pytest.approx(1)
    cosine = torch.nn.functional.cosine_similarity
    assert torch.allclose(cosine(out.user[:, 5:], loud.user), torch.ones(6))


@pytest.mark.parametrize(
    "name", ["de", "phr", "regression", "ftd", "htd", "ir", "ir-rrd", "hetcomp"]
)
def test_stored_lists_alone_are_refused_where_more_is_needed(name):
    lists = teacher_lists(embeddings(5), SEEN, k=4).items
    known = Knowledge(
        None, SEEN, dim=4, rng=lambda use: generator(), stored=(torch.rand(6, 4), lists)
    )
    with pytest.raises(ValueError, match="needs a teacher to ask, not stored lists"):
        build_parts([name], known, {name: SMALL.get(name, {})})


@pytest.mark.parametrize("name", ["rrd", "sampled-rrd", "rd", "cd"])
def test_stored_lists_serve_as_those_of_their_teacher(name):
    direct, lists = knowledge(), knowledge().scored(4)
    stored = Knowledge(None, SEEN, dim=4, rng=lambda use: generator(), stored=lists)
    values = []
    for known in (direct, stored):
        (part,) = build_parts([name], known, {name: SMALL[name]})
        batch = everyone() if part.batches is None else Entities(torch.arange(6))
        values.append(part.term(embeddings(4, 5), batch))
    assert torch.equal(*values)


def test_stored_lists_that_are_too_short_are_refused():
    lists = knowledge().scored(2)
    known = Knowledge(None, SEEN, dim=4, rng=lambda use: generator(), stored=lists)
    with pytest.raises(ValueError, match="stored lists have 2 entries, a method asks for 3"):
        build_parts(["rrd"], known, {"rrd": {"k": 3}})


@pytest.mark.parametrize("name", sorted({*METHODS} - {"concf"}))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_that_has_diverged_is_refused(name, value):
    teacher = embeddings(5)
    teacher.item[3] = value
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        build_parts([name], knowledge(teacher), {name: SMALL.get(name, {})})


def test_a_teacher_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="'teacher' has 7 users and 9 items, the data 6 and 8"):
        knowledge(embeddings(5, users=7, items=9))


def test_trajectories_of_one_checkpoint_are_refused():
    known = knowledge(trajectories=Trajectories.of([[embeddings(5)]], SEEN, k=4))
    with pytest.raises(ValueError, match="two checkpoints or more"):
        build_parts(["hetcomp"], known, {"hetcomp": SMALL["hetcomp"]})
    with pytest.raises(ValueError, match="their lists were not kept"):
        build_parts(["hetcomp"], knowledge(trajectories=None), {})


def test_users_without_unseen_items_learn_nothing_and_break_nothing():
    seen = user_items([(0, i) for i in range(8)] + [(1, 2)])
    for name in METHODS:
        trajectories = Trajectories.of([[embeddings(5, 1), embeddings(5, 2)]], seen, k=4)
        known = Knowledge(
            embeddings(5), seen, dim=4, rng=lambda use: generator(), trajectories=trajectories
        )
        (part,) = build_parts([name], known, {name: SMALL.get(name, {})})
        batch = everyone() if part.batches is None else Entities(torch.arange(6))
        out = leaves(embeddings(4, 5))
        part.term(out, batch).backward()
        assert out.user.grad.isfinite().all(), name
