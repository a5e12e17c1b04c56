"""Runs of strategies other than CCD, as plain as the contract allows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow.parquet
import pytest
import torch
from torch import Tensor, nn

from ccdgraph import checkpoint
from ccdgraph.checkpoint import CheckpointError
from ccdgraph.config import ConfigError, from_dict, load, to_dict, to_toml
from ccdgraph.continual import CCDConfig, Strategy
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.run import EvaluateConfig, RunConfig, Watcher, open_stream, plan, recommend, run
from ccdgraph.testing import check_strategy
from ccdgraph.train import FitConfig


@dataclass(frozen=True)
class PopularConfig:
    weight: float = 1.0
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("MF", dim=2))
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=3))
    mask: str = "strict"


class Popular(Strategy):
    """Counts interactions in one piece, and serves what has no embeddings."""

    def __init__(self, config: PopularConfig = PopularConfig(), *, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self.model = nn.Linear(2, 3)
        self.count = torch.zeros(0)
        self.num_users = 0

    def update(self, block):
        count = torch.bincount(block.train.item, minlength=block.num_items).float()
        count[: len(self.count)] += self.count.to(count.device)
        self.count, self.num_users = self.config.weight * count, block.num_users
        if self.on_progress is not None:
            self.on_progress(f"block {block.index} counting", 1, 1)
        return Counted(self.count, self.num_users)

    def scorers(self):
        return {"model": Counted(self.count, self.num_users), "second": Counted(-self.count, 3)}

    def state(self) -> dict[str, Tensor]:
        return {"count": self.count, "users": torch.tensor([self.num_users])}

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence) -> None:
        self.count, self.num_users = state["count"], int(state["users"])


class Staged(Popular):
    """The same in two stages, the second of which tells no epoch, and with embeddings."""

    done = torch.tensor([-1, 0])

    def update(self, block):
        if int(self.done[0]) != block.index:
            self.done = torch.tensor([block.index, 0])
        if int(self.done[1]) == 0:
            super().update(block)
            self._finish(block, 1)
        if int(self.done[1]) == 1:
            self._finish(block, 2)
        return self.scorers()["model"]

    def _finish(self, block, stage):
        self.done = torch.tensor([block.index, stage])
        if self.on_stage is not None:
            self.on_stage()

    def scorers(self):
        return {"model": Embeddings(self.count.new_ones(self.num_users, 1), self.count[:, None])}

    def state(self):
        return {**super().state(), "done": self.done}

    def restore(self, state, blocks):
        super().restore(state, blocks)
        self.done = state["done"]
        assert len(blocks) == int(self.done[0]) + 1


@dataclass
class Counted:
    """Scores of counts; ``users`` is how many it knows."""

    count: Tensor
    num_users: int

    @property
    def num_items(self) -> int:
        return len(self.count)

    def scores(self, user: Tensor) -> Tensor:
        return self.count.expand(len(user), -1)


class Unconfigured(Popular):
    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)


class StopError(Exception):
    pass


class StopAt(Watcher):
    """Raises after the stages of the labels, and keeps all labels."""

    def __init__(self, *at: str) -> None:
        self.at, self.stages, self.epochs = set(at), [], []

    def stage(self, label: str, seconds: float) -> None:
        self.stages.append(label)
        if label in self.at:
            self.at.remove(label)
            raise StopError

    def epoch(self, label: str, done: int, total: int) -> None:
        self.epochs.append(label)


def configured(config, name: str, **settings) -> RunConfig:
    evaluate = EvaluateConfig(ks=(5,), scorers=("model",), per_user=True)
    return RunConfig(
        data=config.data, strategy=f"{__name__}:{name}", settings=settings, evaluate=evaluate
    )


def until_done(config, folder, watcher) -> int:
    for times in range(1, 30):
        try:
            run(config, folder, resume=True, watcher=watcher)
        except StopError:
            continue
        return times
    raise AssertionError("the run never ends")


def assert_same(folder, straight) -> None:
    for name in ("checkpoint", "served"):
        mine, expected = (checkpoint.load(f / name)[0] for f in (folder, straight))
        assert mine.keys() == expected.keys()
        assert all(torch.equal(mine[key], expected[key]) for key in mine)
    for path in straight.rglob("*.parquet"):
        mine = pyarrow.parquet.read_table(folder / path.relative_to(straight))
        assert mine.equals(pyarrow.parquet.read_table(path)), path.name
    mine, expected = (json.loads((f / "run.json").read_text()) for f in (folder, straight))
    assert mine["complete"] and set(mine["seconds"]) == set(expected["seconds"])
    for key in ("results", "signatures", "health", "state_bytes", "served", "parameters"):
        assert mine[key] == expected[key], key


def test_the_small_strategies_keep_the_contract():
    check_strategy(lambda _: Staged())


@pytest.mark.parametrize("protocol", ["within", "next"])
@pytest.mark.parametrize("name", ["Popular", "Staged"])
def test_a_strategy_stopped_anywhere_changes_no_bit(config, tmp_path, name, protocol):
    """Fails when a block that was learnt in one piece is learnt twice, or stages are lost."""
    config = configured(config, name, weight=0.5)
    config = replace(config, data=replace(config.data, protocol=protocol))
    straight = StopAt()
    run(config, tmp_path / "straight", watcher=straight)
    stopping = StopAt(*straight.stages)
    times = until_done(config, tmp_path / "stopping", stopping)
    assert times == len(set(straight.stages)) + 1
    assert_same(tmp_path / "stopping", tmp_path / "straight")
    if protocol == "within":
        assert set(stopping.stages) == set(straight.stages)
        # Each label once, and once more where the block that had been begun is measured.
        assert straight.epochs == [f"block {k} counting" for k in range(3)]


def test_a_run_stopped_before_its_block_is_stored_learns_it_again(config, tmp_path, monkeypatch):
    config = configured(config, "Popular", weight=0.5)
    run(config, tmp_path / "straight")
    real, left = checkpoint.save, 3

    def save(folder, tensors, meta):
        nonlocal left
        left -= folder.name == "checkpoint"
        if left == 0:
            raise StopError
        real(folder, tensors, meta)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(StopError):
            run(config, tmp_path / "run")
    run(config, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "straight")


def test_seconds_parameters_and_memory_are_recorded(config, tmp_path):
    result = run(configured(config, "Staged"), tmp_path / "run")
    stages = ("counting", "learning", "evaluation")
    assert set(result.seconds) == {f"{k}/{name}" for k in range(3) for name in stages}
    assert result.parameters == {"model": 2 * 3 + 3}
    last = open_stream(config.data)[2]
    assert result.state_bytes["2"] == 4 * last.num_items + 8 + 2 * 8
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["state_bytes"] == dict(result.state_bytes)
    assert (about["served"], about["strategy"]) == ("model", f"{__name__}:Staged")


def test_a_popularity_strategy_is_shown_as_collapsed(config, tmp_path, caplog):
    """Every user is listed the same items."""
    data = replace(config.data, synthetic=replace(config.data.synthetic, num_items=80))
    result = run(replace(configured(config, "Staged"), data=data), tmp_path / "run")
    assert {(s.kind, s.scorer, s.block) for s in result.signatures} >= {
        ("collapsed", "model", k) for k in range(3)
    }
    assert "after block 0: 'model' lists much the same 5 items for every user" in caplog.text
    stored = json.loads((tmp_path / "run" / "run.json").read_text())["signatures"]
    assert stored == [signature._asdict() for signature in result.signatures]


def test_scorers_without_embeddings_are_served_as_lists(config, tmp_path):
    run(configured(config, "Popular"), tmp_path / "lists")
    run(configured(config, "Staged"), tmp_path / "embeddings")
    stream = open_stream(config.data)
    user = stream.users[3]
    assert recommend(tmp_path / "lists", user, 7) == recommend(tmp_path / "embeddings", user, 7)
    assert recommend(tmp_path / "lists", user, stream[2].num_items)
    with pytest.raises(ValueError, match=r"'k' is 1000, expected 1 to \d+: the strategy serves no"):
        recommend(tmp_path / "lists", user, 1000)


def test_all_scorers_are_measured_unless_some_are_named(config, tmp_path):
    everything = replace(configured(config, "Staged"), evaluate=EvaluateConfig(ks=(5,)))
    assert run(everything, tmp_path / "all").scorers == ("model",)
    other = replace(everything, evaluate=EvaluateConfig(ks=(5,), scorers=("modle",)))
    with pytest.raises(ValueError, match="'modle' is not among the scorers of the strategy: model"):
        run(other, tmp_path / "other")
    ccd = replace(config, evaluate=EvaluateConfig(ks=(5,)))
    assert run(ccd, tmp_path / "ccd").scorers == (
        *("student", "teacher", "generated", "stability", "plasticity"),
    )


def test_the_plan_of_a_strategy_is_a_stage_a_block(config):
    stages = plan(configured(config, "Popular"), open_stream(config.data))
    assert [stage.name for stage in stages] == ["learning", "evaluation"] * 3
    assert stages[0].epochs == 3


def test_settings_are_written_out_and_read_back(config, tmp_path):
    own = configured(config, "Popular", weight=2.0)
    assert own.settings["fit"] == to_dict(FitConfig(epochs=3)) and own.ccd is None
    assert own.learner == PopularConfig(weight=2.0)
    (tmp_path / "own.toml").write_text(to_toml(own))
    assert load(RunConfig, tmp_path / "own.toml") == own
    assert from_dict(RunConfig, to_dict(own)) == own
    assert RunConfig(strategy="ccdgraph.continual.ccd:CCD") == RunConfig()


def test_the_mask_reaches_the_settings(config):
    evaluate = EvaluateConfig(mask="block")
    own = replace(configured(config, "Popular"), settings={}, evaluate=evaluate)
    assert own.settings["mask"] == "block" == own.mask
    with pytest.raises(ValueError, match=r"'evaluate.mask' is 'strict' and 'settings.mask' 'blo"):
        replace(own, settings={"mask": "block"}, evaluate=EvaluateConfig(mask="strict"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"strategy": "FineTuen"}, "no 'FineTuen' in module 'ccdgraph.continual'; did you mean"),
        ({"strategy": "grow"}, "is not a strategy"),
        ({"strategy": "Strategy"}, "is not a strategy"),
        ({"strategy": "no_such_module:Mine"}, "cannot import 'no_such_module'"),
        ({"strategy": f"{__name__}:Unconfigured"}, "annotate its argument 'config'"),
        (
            {"strategy": f"{__name__}:Popular", "settings": {"wieght": 1.0}},
            "unknown key 'settings.wieght'; did you mean 'weight'?",
        ),
        ({"settings": {"weight": 1.0}}, "'settings' has no effect on strategy 'CCD'"),
        ({"strategy": f"{__name__}:Popular", "ccd": {}}, "'ccd' has no effect on strategy"),
        (
            {"strategy": f"{__name__}:Popular", "base_from": "x"},
            "'base_from' has no effect on strategy",
        ),
    ],
)
def test_strategies_that_cannot_be_made_are_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(RunConfig, table)


def test_the_base_model_of_another_baseline_is_taken_over(config, tmp_path):
    class Epochs(Watcher):
        labels: tuple[str, ...] = ()

        def epoch(self, label: str, done: int, total: int) -> None:
            self.labels += (label,)

    plain = RunConfig(data=config.data, strategy="FineTune", evaluate=EvaluateConfig(ks=(5,)))
    first, second = plain, replace(plain, strategy="SPMF", settings={})
    run(first, tmp_path / "first")
    watcher, given = Epochs(), replace(second, base_from=str(tmp_path / "first"))
    shared = run(given, tmp_path / "shared", watcher=watcher)
    assert {*watcher.labels} == {"block 1 model", "block 2 model"}
    assert shared.rows == run(second, tmp_path / "alone").rows
    wider = replace(second, settings={**second.settings, "backbone": {"dim": 3}})
    with pytest.raises(CheckpointError, match=r"is of another run: 'backbone.dim' = 8, not 3"):
        run(replace(wider, base_from=str(tmp_path / "first")), tmp_path / "wider")


def test_a_checkpoint_of_another_strategy_is_refused(config, tmp_path):
    run(configured(config, "Popular"), tmp_path / "one")
    run(configured(config, "Staged"), tmp_path / "two")
    tensors, meta = checkpoint.load(tmp_path / "one" / "checkpoint")
    checkpoint.save(tmp_path / "two" / "checkpoint", tensors, meta)
    with pytest.raises(CheckpointError, match=r"class '.*Popular' where '.*Staged' is expected"):
        run(configured(config, "Staged"), tmp_path / "two", resume=True)


def test_ccd_keeps_its_table():
    config = from_dict(RunConfig, {"ccd": {"student": {"dim": 3}}})
    assert config.ccd == CCDConfig(student=BackboneConfig(dim=3)) and config.settings == {}
