"""What pages say to type is there to be typed, and the README says what was measured."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from ccdgraph.bench import SuiteConfig
from ccdgraph.cli import app
from ccdgraph.config import from_dict
from ccdgraph.nn import BackboneConfig
from ccdgraph.run import DistillConfig, RunConfig
from ccdgraph.run.tune import TuneConfig

COMMANDS = get_command(app)
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")]
PAGES += sorted({*ROOT.glob("docs/*.rst"), *ROOT.glob("docs/methods/*.rst")})
PAGES += sorted({*ROOT.glob("docs/recipes/*"), *ROOT.glob("benchmarks/configs/*.toml")})
# Where it stands by itself on an indented line, or between backquotes.
COMMAND = re.compile(
    r"(?:^#?(?:    |   \$ ) *|`)(?:\w+=\S+ )*((?:ccdgraph|python|make) [^`\n]+)", re.M
)
FENCE = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.M | re.S)
PLACE = re.compile(r"(?<![\w/.-])((?:benchmarks|docs|tests|ccdgraph|requirements)/[\w./-]*\w)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def typed(page):
    """Words of every command of a page, lines that a backslash continues joined."""
    text = re.sub(r"\\\n#?\s*", "", page.read_text(encoding="utf-8"))
    text = FENCE.sub(lambda block: re.sub("^", "    ", block[1], flags=re.M), text)
    for found in COMMAND.findall(text):
        yield shlex.split(found, comments=True)


def options(words):
    return {word.lstrip("[").rstrip("]").split("=")[0] for word in words if "--" in word[:3]}


@each_page
def test_every_ccdgraph_command_and_its_options_exist(page):
    for name, *words in typed(page):
        if name != "ccdgraph":
            continue
        command = COMMANDS
        while hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, words
            command = command.commands[words.pop(0)]
        known = {name for option in command.params for name in option.opts}
        assert options(words) <= known | {"--help"}, words


@each_page
def test_every_script_has_the_options_that_are_given(page):
    for name, *words in typed(page):
        script = next((word for word in words if word.endswith(".py")), None)
        if name == "python" and script is not None and "-m" not in words:
            assert options(words) <= offered(script), words


def offered(script):
    """Options that stand in the source, and those that it builds from the names of defaults."""
    source = (ROOT / script).read_text(encoding="utf-8")
    names = re.findall(r'"(\w+)": ', source) if 'f"--{name' in source else []
    return {
        *re.findall(r'"(--[\w-]+)"', source),
        *(f"--{name.replace('_', '-')}" for name in names),
    }


@each_page
def test_every_target_of_make_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for name, *words in typed(page):
        assert name != "make" or words[0] in targets, words


@each_page
def test_every_file_of_the_repository_that_is_named_exists(page):
    """What a command is yet to write may be missing: results, tuned settings, the site."""
    for place in PLACE.findall(page.read_text(encoding="utf-8")):
        made = place.startswith(("docs/_build", "benchmarks/results/"))
        made = made or place.endswith("_tuned.toml")
        assert made or (ROOT / place).exists() or (ROOT / f"{place}.py").exists(), place


def configurations():
    """Every block of TOML in the pages of the documentation."""
    block = re.compile(r"\.\. code-block:: toml\n\n((?: {3,}.*\n|\n)+)")
    for page in sorted(ROOT.glob("docs/*.rst")):
        for number, text in enumerate(block.findall(page.read_text(encoding="utf-8"))):
            yield pytest.param(tomllib.loads(text), id=f"{page.stem}-{number}")


@pytest.mark.parametrize("table", list(configurations()))
def test_every_configuration_is_one(table):
    """Each is that of a run, of a distillation, a search or a suite, or a backbone of one."""
    kinds = {"strategies": SuiteConfig, "space": TuneConfig, "distill": DistillConfig}
    kind = next((kinds[key] for key in kinds if key in table), RunConfig)
    if list(table) == ["backbone"]:
        kind, table = BackboneConfig, table["backbone"]
    assert from_dict(kind, table)


def test_commands_are_found_where_they_are_typed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "ccdgraph and others\n\n    ccdgraph run A \\\n        --resume  # on\n\n"
        "See `make demo`, which\nmake test does.\n\n```sh\npython a.py --to 'b c'\n```\n"
        "#     OMP_NUM_THREADS=1 ccdgraph bench B\n   $ ccdgraph doctor\n"
    )
    assert sorted(typed(page)) == [
        ["ccdgraph", "bench", "B"],
        ["ccdgraph", "doctor"],
        ["ccdgraph", "run", "A", "--resume"],
        ["make", "demo"],
        ["python", "a.py", "--to", "b c"],
    ]


def test_the_readme_shows_what_was_measured():
    def stored(name):
        return json.loads((ROOT / "benchmarks/results" / name).read_text())

    table = stored("strategies_tuned.json")["tables"]["yelp, within, block, LightGCN"]
    strategies = {name: row["H"]["mean"] for name, row in table.items() if "/" not in name}
    ours = strategies.pop("CCD, student")
    del strategies["CCD, teacher"]
    distilled = strategies.pop("CCD, generated")
    peers = {n: row["seconds an epoch"] for n, row in stored("peers_cuda.json")["peers"].items()}
    [whole] = stored("yelp/whole_stream.json")["cells"]
    largest = stored("scale_cuda.json")["sizes"][-1]
    stages = ("read", "split", "learn block 0", "learn block 1", "measure")
    seconds = sum(largest["seconds"][name] for name in stages)
    student, ensemble = (stored("speed_cpu.json")["serving"][n][0] for n in ("student", "ensemble"))
    expected = [
        f"CCD {ours:.4f}, and {distilled:.4f} once its teachers have learnt the block | "
        f"the best of fifteen other strategies {max(strategies.values()):.4f}, "
        f"fine-tuning {strategies['FineTune, model']:.4f}".replace(" 0.", " ."),
        "{:.2f} s | PyG's example {:.2f} s, RecBole {:.2f} s".format(
            *(peers[f"{name} LightGCN"] for name in ("ccdgraph", "PyG", "RecBole"))
        ),
        f"| {sum(whole['seconds'].values()) + sum(whole['base_seconds'].values()):.0f} s | hours",
        f"{seconds:.1f} s, {largest['peak_bytes']['device'] / 2**30:.0f} GiB",
        f"student {1e3 * student:.1f} ms | five teachers {1e3 * ensemble:.0f} ms",
    ]
    readme = (ROOT / "README.md").read_text()
    assert len(strategies) == 15
    assert [text for text in expected if text not in readme] == []
