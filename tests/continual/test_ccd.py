from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from small_ccd import CONFIG, State, differing, learn, stream, with_settings
from torch import Tensor

from ccdgraph.continual import CCD, generation, scene, stages
from ccdgraph.continual.scene import Scene
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.distill import methods
from ccdgraph.nn import MF, BackboneConfig, Embeddings, LightGCN, MultVAE
from ccdgraph.ranking import recommend_lists
from ccdgraph.testing import check_strategy
from ccdgraph.train import Term, embed

STAGES = ["teacher 0", "teacher 1", "teacher 2", "generation"]
ALL = [*(f"0/{s}" for s in STAGES), *(f"{b}/{s}" for b in (1, 2) for s in ["student", *STAGES])]
EVERYTHING = {
    "update.updates": 3,
    "decay": 0.5,
    "generation.start": "previous",
    "keep_stability": (0.9, 0.5),
    "keep_plasticity": (0.3,),
}


@cache
def default() -> tuple[CCD, dict[str, State]]:
    return learn(CONFIG)


@cache
def elaborate() -> tuple[CCD, dict[str, State]]:
    return learn(with_settings(EVERYTHING))


def test_lists_imposed_on_the_tables_are_a_term_on_layer_zero():
    model = LightGCN(5, 4, 3, generator=torch.Generator().manual_seed(0))
    pairs = Interactions(torch.arange(5), torch.arange(5) % 4)
    out = model(BipartiteGraph.from_interactions(pairs, 5, 4))

    draw = torch.Generator()

    class Product(Term):
        def forward(self, out: Embeddings, batch: object) -> Tensor:
            return (out.user[0] * out.item[1]).sum()

        def draws(self) -> tuple[torch.Generator, ...]:
            return (draw,)

    term = generation.OnTables(Product())
    assert term.draws() == (draw,) and term.fixed(1) == term.fixed(2)  # recorded as the term is
    loss = term(out, None)
    assert loss.detach() == (model.user[0] * model.item[1]).sum()
    assert loss != Product()(out, None)


def test_a_block_out_of_order_is_refused():
    learner, blocks = CCD(CONFIG), stream()
    with pytest.raises(ValueError, match="'block' is number 1 after number -1; learn blocks in"):
        learner.update(blocks[1])
    learner.update(blocks[0])
    learner.update(blocks[1])
    with pytest.raises(ValueError, match="'block' is number 0 after number 1"):
        learner.update(blocks[0])


def test_every_stage_of_every_block_runs_once_and_in_order():
    assert list(default()[1]) == ALL == list(default()[0].seconds)


def test_an_ensemble_mixes_kinds_of_models():
    learner, _ = default()
    assert [type(teacher) for teacher in learner.teachers] == [MF, LightGCN, MultVAE]
    last = stream()[2]
    for scorer in learner.scorers().values():
        assert (scorer.num_users, scorer.num_items) == (last.num_users, last.num_items)
        assert scorer.scores(torch.arange(last.num_users)).isfinite().all()


def test_every_model_is_trained_in_its_stage():
    """A stage that returned its model only grown would leave the rows of old entities alone."""
    trace = default()[1]
    for before, stage in pairwise(ALL):
        name = stage.split("/")[1].replace(" ", ".").replace("generation", "student")
        if stage[0] == "0" and name != "student":
            continue
        table = next(t for t in ("item", "encoder") if f"{name}/{t}" in trace[stage])
        now = trace[stage][f"{name}/{table}"]
        old = trace[before].get(f"{name}/{table}", torch.zeros_like(now))
        assert not torch.isclose(now[: len(old)], old).all(), stage


def test_a_new_block_is_served_by_the_updated_student_not_the_distilled_one():
    learner, trace = default()
    served, generated = learner.knowledge["student"], learner.knowledge["generated"]
    assert torch.equal(served.user, trace["2/student"]["knows.student/user"])
    assert torch.equal(generated.user, embed(learner.student, learner.known.graph).user)
    assert not torch.equal(served.user, generated.user)
    assert next(iter(learner.scorers())) == "student"
    assert learner.scorers()["student"] is served


def test_proxies_start_as_the_first_distilled_student():
    first = default()[1]["0/generation"]
    for name in ("stability", "plasticity", "generated"):
        for side in ("user", "item"):
            assert torch.equal(first[f"knows.{name}/{side}"], first[f"knows.student/{side}"])


def test_proxies_are_moving_averages_of_the_distilled_students():
    """Shares are by block: .9 then .5 of the old stability proxy, .3 of the plasticity proxy."""
    trace = elaborate()[1]
    for name, shares in (("stability", (0.9, 0.5)), ("plasticity", (0.3, 0.3))):
        for block, share in ((1, shares[0]), (2, shares[1])):
            before, after = trace[f"{block - 1}/generation"], trace[f"{block}/generation"]
            for side in ("user", "item"):
                old = before[f"knows.{name}/{side}"]
                new = after[f"knows.generated/{side}"]
                expected = new.clone()
                expected[: len(old)] = share * old + (1 - share) * new[: len(old)]
                assert len(new) > len(old)
                torch.testing.assert_close(after[f"knows.{name}/{side}"], expected)


def test_proxies_do_not_move_while_a_block_is_learnt():
    """Replay for student and teachers reads the proxies of the block before."""
    trace = default()[1]
    for block in (1, 2):
        begun = trace[f"{block - 1}/generation"]
        for stage in ("student", "teacher 0", "teacher 2"):
            held = trace[f"{block}/{stage}"]
            proxies = {key for key in begun if key.startswith(("knows.sta", "knows.pla"))}
            assert len(proxies) == 4 and not differing(begun, held) & proxies


def test_teachers_replay_the_updated_student(monkeypatch):
    sources, original = [], stages.remember

    def record(scene, given, replay):
        sources.append((scene.seed[2], dict(given)))
        return original(scene, given, replay)

    monkeypatch.setattr(stages, "remember", record)
    monkeypatch.setattr("ccdgraph.continual.ccd.remember", record)
    learner = CCD(CONFIG)
    learner.update(stream()[0])
    learner.update(stream()[1])
    (student, for_student), (teacher, for_teacher) = sources
    assert (student, set(for_student)) == ("student", {"stability", "plasticity"})
    assert (teacher, set(for_teacher)) == ("teacher", {"stability", "plasticity", "student"})
    assert for_teacher["student"] is learner.knowledge["student"]


def test_negatives_come_from_no_list_of_teacher_proxies_or_last_student(monkeypatch):
    excluded, original = [], scene.TripletBatches

    def record(interactions, num_items, exclude, **options):
        excluded.append(exclude)
        return original(interactions, num_items, exclude, **options)

    monkeypatch.setattr(scene, "TripletBatches", record)
    learner = CCD(CONFIG)
    learner.update(stream()[0])
    held = dict(learner.knowledge)
    learner.update(stream()[1])
    seen, ensemble = learner.known.seen, learner.ensemble()
    keys = set(seen.keys().tolist())
    sources = [ensemble, held["stability"], held["generated"], learner.knowledge["student"]]
    for source in sources:
        user = torch.arange(source.num_users)
        within = seen.within(source.num_users, source.num_items)
        lists = recommend_lists(source, user, 5, within)[1]
        keys |= {u * seen.num_items + i for u, row in enumerate(lists.tolist()) for i in row}
    assert set(excluded[-1].tolist()) == keys


@pytest.mark.parametrize("graph", ["cumulative", "block"])
def test_distillation_leaves_out_all_that_was_ever_seen(monkeypatch, graph):
    """On both sides, and whatever models propagate over."""
    terms, original = [], methods.RRD

    def record(lists, seen, **options):
        terms.append((lists, seen, options["side"]))
        return original(lists, seen, **options)

    monkeypatch.setattr(methods, "RRD", record)
    learn(with_settings({"graph": graph}), 2)
    train = Interactions.cat([block.train for block in stream().blocks[:2]])
    pairs = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
    for lists, seen, side in terms[-2:]:
        row = torch.repeat_interleave(torch.arange(seen.num_users), seen.degree)
        found = set(zip(row.tolist(), seen.item.tolist(), strict=True))
        listed = {(r, c) for r, row in enumerate(lists.tolist()) for c in row if c >= 0}
        assert found == (pairs if side == "user" else {(i, u) for u, i in pairs})
        assert listed and not listed & found
    assert [side for *_, side in terms] == ["user", "item"] * 2


def test_stages_leave_the_models_they_start_from_as_they_were():
    learner, held = CCD(with_settings(EVERYTHING)), []

    def hold() -> None:
        models = [model for model in (*learner.teachers, learner.student) if model is not None]
        held.extend((m, {k: v.clone() for k, v in m.state_dict().items()}) for m in models)

    learner.on_stage = hold
    for block in stream():
        learner.update(block)
    for model, values in held:
        assert not differing(dict(model.state_dict()), values)


def test_base_teachers_that_are_given_are_used_as_they_are():
    block = stream()[0]
    given = [config.build(block.num_users, block.num_items) for config in CONFIG.teachers]
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in given]
    learner = CCD(CONFIG, teachers=given)
    learner.update(block)
    for model, values, held in zip(given, before, learner.teachers, strict=True):
        assert model is held and not differing(dict(model.state_dict()), values)


def test_seeds_decide_everything():
    other = CCD(CONFIG, seed=1)
    other.update(stream()[0])
    changed = differing(other.state(), default()[1]["0/generation"])
    assert {
        key for key in other.state() if "sizes" not in key and key != "cursor"
    } - changed == set()


@pytest.mark.parametrize("changes", [EVERYTHING, {"graph": "block"}], ids=["all", "block"])
def test_restored_after_any_stage_a_run_ends_with_the_same_bits(changes):
    """In weights and served embeddings alike, whether the learner is fresh or in use."""
    config = with_settings(changes)
    _, trace = learn(config)
    used = CCD(config, seed=5)
    used.update(stream()[0])
    used.update(stream()[1])
    for place, state in enumerate(trace.values()):
        learner = used if place % 2 else CCD(config)
        learner.seed = 0  # what else it had learnt is to be forgotten
        learner.restore(state, stream().blocks)
        for block in stream().blocks[learner.index :]:
            learner.update(block)
        assert not differing(learner.state(), trace[ALL[-1]]), ALL[place]


def test_a_finished_block_is_not_learnt_again():
    learner, trace = learn(CONFIG, 2)
    learner.update(stream()[1])
    assert not differing(learner.state(), trace["1/generation"])


def test_state_holds_copies_of_nothing_that_a_block_has():
    """Tensors are tables and weights: none as long as the training rows."""
    learner, _ = default()
    rows = len(learner.known.history.user)
    assert all(value.shape[0] < rows for value in learner.state().values())


def test_ccd_is_reproducible_blind_to_the_future_and_resumable():
    check_strategy(lambda _: CCD(CONFIG), stream(valid=True))


def test_students_of_every_kind_learn():
    sage = BackboneConfig("torch_geometric.nn:GraphSAGE", 4, {"num_layers": 1})
    for student in (BackboneConfig("MF", 4), BackboneConfig("MultVAE", 4), sage):
        learner, _ = learn(with_settings({"student": student}))
        assert isinstance(learner.scorers()["student"], Embeddings)


def test_a_block_without_training_rows_is_refused():
    learner = CCD(CONFIG)
    learner.update(stream()[0])
    empty = replace(stream()[1], train=Interactions.cat([]))
    with pytest.raises(ValueError, match="training rows"):
        learner.update(empty)


def test_a_variational_teacher_replays_pseudo_labels(monkeypatch):
    """Input and target get an entry of .1 for each replayed pair and keep their own entries.

    The input is what is known of a user, the target what the block has of it.
    """
    seen_by_fit, original = [], Scene.fit

    def record(scene, model, objectives, settings, graph=None):
        if isinstance(model, MultVAE):
            seen_by_fit.append((scene, graph, objectives))
        original(scene, model, objectives, settings, graph)

    monkeypatch.setattr(Scene, "fit", record)
    learn(CONFIG, 2)
    scene, given, (objective,) = seen_by_fit[-1]
    target = objective.parts[0].term.graph
    train, sizes = scene.block.train, (given.num_users, given.num_items)
    block = edges(BipartiteGraph.from_interactions(train, *sizes))
    known = edges(scene.known.graph)
    for graph, own in ((given, known), (target, block)):
        entries = edges(graph)
        assert own.items() <= entries.items()
        replayed = {pair: entries[pair] for pair in entries.keys() - own.keys()}
        assert set(replayed.values()) == {torch.tensor(0.1).item()}
        assert not replayed.keys() & known.keys(), "what is seen is not replayed"
        users = torch.tensor([user for user, _ in replayed]).bincount()
        assert 2 <= users.max() <= 6  # two draws from each of three sources, less what they share
    assert edges(given).keys() - known.keys() == edges(target).keys() - block.keys()


def edges(graph: BipartiteGraph) -> dict[tuple[int, int], float]:
    columns = (graph.user.tolist(), graph.item.tolist(), graph.weight.tolist())
    return {(u, i): w for u, i, w in zip(*columns, strict=True)}
