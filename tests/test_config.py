"""Typed configuration: what is read, what is refused and in which words."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccdgraph import config
from ccdgraph.config import ConfigError


@dataclass(frozen=True)
class Train:
    lr: float = 1e-3
    epochs: int = 10
    betas: tuple[float, float] = (0.9, 0.999)
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}, expected 0 or more")


@dataclass(frozen=True)
class Member:
    backbone: str
    dim: int = 8


@dataclass(frozen=True)
class Run:
    name: str
    train: Train = field(default_factory=Train)
    teachers: tuple[Member, ...] = ()
    ks: tuple[int, ...] = (20, 50)
    protocol: Literal["within", "next"] = "within"
    patience: int | None = 3
    fanout: int | str = "full"
    options: Mapping[str, float] = field(default_factory=dict)


def read(tmp_path: Path, text: str, *overrides: str) -> Run:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(Run, path, overrides)


def test_a_file_becomes_nested_dataclasses(tmp_path):
    run = read(
        tmp_path,
        """
        name = "yelp"
        ks = [10]
        patience = "none"
        fanout = 5
        options = { "a b" = 1 }
        [train]
        lr = 1
        betas = [0.5, 0.9]
        [[teachers]]
        backbone = "my_gat:GAT"
        [[teachers]]
        backbone = "MF"
        dim = 64
        """,
    )
    assert run == Run(
        "yelp",
        Train(lr=1.0, betas=(0.5, 0.9)),
        (Member("my_gat:GAT"), Member("MF", 64)),
        (10,),
        patience=None,
        fanout=5,
        options={"a b": 1.0},
    )
    assert type(run.train.lr) is float


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("train.lr=1e-2", {"train": Train(lr=1e-2)}),
        ("train.shuffle = false", {"train": Train(shuffle=False)}),
        ("ks=[5, 10]", {"ks": (5, 10)}),
        ("name=ml-100k", {"name": "ml-100k"}),
        ("name='2020'", {"name": "2020"}),
        ("name=a\nb=1", {"name": "a\nb=1"}),
        ("patience=none", {"patience": None}),
        ("teachers.0.dim=16", {"teachers": (Member("MF", 16),)}),
        ("teachers=[]", {"teachers": ()}),
        ("options.heads=2", {"options": {"heads": 2.0}}),
    ],
)
def test_an_override_sets_one_field(tmp_path, override, change):
    base = {"name": "x", "teachers": (Member("MF"),)}
    run = read(tmp_path, "name = 'x'\n[[teachers]]\nbackbone = 'MF'\n", override)
    assert run == Run(**(base | change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nlearning_rate = 1", "unknown key 'train.learning_rate'"),
        ("[train]\nepoch = 1", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("[[teachers]]\ndims = 1", "unknown key 'teachers.0.dims'; did you mean 'dim'?"),
        ("[[teachers]]\ndim = 1", "key 'teachers.0.backbone' is missing; it has no default"),
        ("[train]\nepochs = 1.5", "'train.epochs' is the float 1.5, expected int"),
        ("[train]\nepochs = true", "'train.epochs' is the bool True, expected int"),
        ("[train]\nlr = 'x'", "'train.lr' is the str 'x', expected float"),
        ("[train]\nshuffle = 1", "'train.shuffle' is the int 1, expected bool"),
        ("[train]\nbetas = [1]", "'train.betas' has 1 values, expected 2"),
        ("[train]\nepochs = -1", "'train': epochs is -1, expected 0 or more"),
        ("train = 3", "'train' is the int 3, expected Train"),
        ("ks = 20", "'ks' is the int 20, expected tuple[int, ...]"),
        ("ks = [20, 'x']", "'ks.1' is the str 'x', expected int"),
        ("protocol = 'nxt'", "'protocol' is 'nxt', expected one of 'within', 'next'"),
        ("patience = 'x'", "'patience' is the str 'x', expected int"),
        ("fanout = 1.5", "'fanout' is the float 1.5, expected int or str"),
    ],
)
def test_what_does_not_fit_is_refused_by_path(tmp_path, text, message):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, f"name = 'x'\n{text}\n")
    assert str(refused.value) == f"'{tmp_path / 'run.toml'}': {message}"


@pytest.mark.parametrize("override", ["lr", "=3", "a..b=1", "name.x=1", "teachers.1.dim=2"])
def test_an_override_that_leads_nowhere_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="override"):
        read(tmp_path, "name = 'x'\n[[teachers]]\nbackbone = 'MF'\n", override)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read '.*none\.toml': No such file"):
        config.load(Run, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read(tmp_path, "name = ")
    (tmp_path / "bytes.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        config.load(Run, tmp_path / "bytes.toml")


# what TOML itself can hold: any character but a lone surrogate
text = st.text(st.characters(exclude_categories=["Cs"]))
runs = st.builds(
    Run,
    name=text,
    train=st.builds(
        Train, lr=st.floats(allow_nan=False), epochs=st.integers(0, 2**60), shuffle=st.booleans()
    ),
    teachers=st.lists(st.builds(Member, text, st.integers(-9, 9)), max_size=3).map(tuple),
    ks=st.lists(st.integers(1, 100)).map(tuple),
    protocol=st.sampled_from(["within", "next"]),
    patience=st.none() | st.integers(),
    fanout=st.integers(-(2**60), 2**60) | text,
    options=st.dictionaries(text, st.floats(allow_nan=False), max_size=3),
)


@given(run=runs)
def test_the_resolved_config_reads_back_equal(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_bytes(config.to_toml(run).encode())
    assert config.load(Run, path) == run
    assert config.from_dict(Run, config.to_dict(run)) == run


def test_classes_are_named_by_import_path():
    assert config.resolve("torch.nn:Linear") is torch.nn.Linear
    assert config.resolve(config.class_path(ConfigError)) is ConfigError


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Linear", "'Linear' names no class; write 'module:Name', as in 'my_gat:GAT'"),
        ("torch.nn:", "names no class"),
        ("no_such_module:X", "cannot import 'no_such_module' of 'no_such_module:X'"),
        ("torch.nn:Liner", "no 'Liner' in module 'torch.nn'; did you mean 'Linear'?"),
    ],
)
def test_wrong_import_paths_are_refused(path, message):
    with pytest.raises(ConfigError, match="^.*" + message.replace("?", r"\?")):
        config.resolve(path)


def test_generators_of_equal_parts_draw_equally_and_others_do_not():
    def draw(*parts: int | str) -> list[float]:
        return torch.rand(3, generator=config.rng(*parts)).tolist()

    assert draw(0, "student", 1) == draw(0, "student", 1)
    others = [(0, "student", 2), (1, "student", 1), (0, "teacher", 1), (0, "student", "1"), (0,)]
    assert all(draw(*parts) != draw(0, "student", 1) for parts in others)


def test_seeds_do_not_depend_on_the_process():
    """A seed from Python's own `hash` of a string would differ in every process."""
    code = "from ccdgraph.config import rng; print(rng(0, 'student', 1).initial_seed())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert int(out.stdout) == config.rng(0, "student", 1).initial_seed() < 2**63
