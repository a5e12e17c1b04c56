import errno
import gzip
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from ccdgraph import __version__, checkpoint
from ccdgraph.cli import app, main
from ccdgraph.cli.doctor import advice, findings
from ccdgraph.cli.watch import Lines, watching
from ccdgraph.config import load
from ccdgraph.data import fingerprint, read_stream
from ccdgraph.run import EvaluateConfig, RunConfig, open_stream, plan, run
from ccdgraph.run import loop as running

TINY = """
[data]
num_blocks = 1
synthetic = { num_users = 50, num_items = 40, num_interactions = 700, num_communities = 4 }

[evaluate]
ks = [5]

[ccd]
student = { dim = 2 }
teachers = [{ backbone = "MF", dim = 2 }]
base = { fit = { epochs = 1 } }
generation = { fit = { epochs = 1 } }
update = { fit = { epochs = 1 } }
teacher = { fit = { epochs = 1 } }
"""
REDUCED = [
    *("--set", "data.synthetic.num_users=60", "--set", "data.synthetic.num_items=60"),
    *("--set", "data.synthetic.num_interactions=900", "--set", "ccd.base.fit.epochs=1"),
]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """``tiny.toml`` in a current directory of its own."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    return tmp_path


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*arguments) -> str:
    """The sentence on stderr of a command that ends with 2."""
    result = invoke(*arguments, code=2)
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n"), result.stderr
    assert result.stdout == ""
    return result.stderr


def matrix(folder):
    return json.loads((Path(folder) / "run.json").read_text())["results"]


def test_help_and_version_answer_without_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from ccdgraph.cli import app\n"
        "for option in ('--help', '--version'):\n"
        "    result = CliRunner().invoke(app, [option]); print(result.output, end='')\n"
        "    assert result.exit_code == 0 and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"ccdgraph {__version__}\n")
    for command in ("demo", "run", "bench", "recommend", "doctor", "data"):
        assert f" {command} " in done.stdout


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "ccdgraph", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"ccdgraph {__version__}\n")


def test_a_command_says_nothing_of_what_torch_deprecates():
    """Newer versions of torch warn users of what PyG calls; here every warning is asked for."""
    command = [sys.executable, "-W", "default", "-m", "ccdgraph", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "torch" in done.stdout
    assert "deprecated" not in done.stderr


def test_demo_shows_both_matrices_and_leaves_a_run(tmp_path):
    shown = invoke("demo", "--to", tmp_path / "run", "--set", "data.num_blocks=1", *REDUCED)
    assert "student: recall@20" in shown.stdout and "teacher: recall@20" in shown.stdout
    header = next(line for line in shown.stdout.splitlines() if "after" in line)
    assert header.split() == ["after", "D0", "D1", "LA", "RA", "H"]
    row = next(line for line in shown.stdout.splitlines() if line.split()[:1] == ["D1"])
    means = matrix(tmp_path / "run")["student"]
    expected = [*means["matrix"][1], *(means["with_base"][name][1] for name in ("LA", "RA", "H"))]
    assert row.split()[1:] == [f"{value:.4f}".removeprefix("0") for value in expected]
    assert f"the run is in {tmp_path / 'run'}" in shown.stdout
    assert "block 1 teacher 2: " in shown.stderr and "after block 1, recall@20: " in shown.stderr
    kinds = load(RunConfig, tmp_path / "run" / "config.toml").ccd.teachers
    assert [teacher.backbone for teacher in kinds] == ["LightGCN", "MF", "MultVAE"]
    hint = next(line for line in shown.stdout.splitlines() if line.startswith("next: ccdgraph "))
    assert len(invoke(*hint.split()[2:]).stdout.splitlines()) == 20


def test_demo_without_a_folder_takes_a_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shown = invoke("demo", "--set", "data.num_blocks=1", *REDUCED).stdout
    (folder,) = tmp_path.glob("ccdgraph-demo-*")
    assert f"the run is in {folder}" in shown and json.loads((folder / "run.json").read_text())


def test_run_writes_under_the_name_of_its_configuration(tiny):
    invoke("run", "tiny.toml", "--set", "ccd.student.dim=3", "--set", "seed=4")
    config = load(RunConfig, "runs/tiny/config.toml")
    assert (config.ccd.student.dim, config.seed) == (3, 4)
    assert "is not empty; add --resume" in refused("run", "tiny.toml")
    assert "'ccd.student.dim' = 3, not 2" in refused(
        "run", "tiny.toml", "--resume", "--set", "seed=4"
    )


@pytest.mark.parametrize("when", ["block 0 teacher 0", "block 0 evaluation", "block 1 student"])
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tiny, monkeypatch, when):
    invoke("run", "tiny.toml", "--to", "straight")
    tell = Lines.stage

    def press(self, label, seconds):
        tell(self, label, seconds)
        if label == when:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "stage", press)
        stopped = invoke("run", "tiny.toml", "--set", "seed=0", "--to", "a run", code=130)
    last = stopped.stderr.splitlines()[-1]
    assert last == "stopped; go on with: ccdgraph run 'a run/config.toml' --to 'a run' --resume"
    assert not json.loads(Path("a run/run.json").read_text())["complete"]
    again = invoke("run", "a run/config.toml", "--to", "a run", "--resume")
    assert f"{when}:" not in again.stderr
    assert matrix("a run") == matrix("straight")


def test_ctrl_c_before_a_run_begins_leaves_nothing(tiny, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "fingerprint", press)
    assert invoke("run", "tiny.toml", code=130).stderr == "stopped\n"
    assert not Path("runs").exists()


def test_a_full_disk_is_one_sentence_and_can_be_resumed(tiny, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        sentence = refused("run", "tiny.toml", "--to", "run")
        assert sentence.startswith("cannot write 'run/config.toml': the disk is full; free some")
        assert not list(Path("run").iterdir())
    invoke("run", "tiny.toml", "--to", "run", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        sentence = refused("data", "convert", stream_folder(), "converted")
        assert sentence == "the disk is full; free some space and run again\n"
    assert not list(Path().glob("*converted*"))


def stream_folder() -> Path:
    """A small folder of split blocks."""
    folder = Path("blocks")
    folder.mkdir(exist_ok=True)
    (folder / "block_0.csv").write_text("user,item,split\n0,0,train\n1,1,train\n0,1,test\n")
    (folder / "block_1.csv").write_text("user,item,split\n2,2,train\n1,2,test\n")
    return folder


def test_a_backbone_of_the_current_directory_resolves(tiny, monkeypatch):
    Path("my_mf.py").write_text("from ccdgraph.nn import MF\n\nclass Mine(MF):\n    pass\n")
    arguments = ["ccdgraph", "run", "tiny.toml", "--set", "ccd.student.backbone=my_mf:Mine"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert (Path("runs/tiny/run.json")).exists()


def test_recommend_lists_external_ids_that_are_new_to_the_user(tiny):
    invoke("run", "tiny.toml", "--to", "run")
    stream = open_stream(load(RunConfig, "tiny.toml").data)
    lines = invoke("recommend", "run", "--user", stream.users[0], "--k", 5).stdout.splitlines()
    items = [line.split("\t")[0] for line in lines]
    scores = [float(line.split("\t")[1]) for line in lines]
    assert len(items) == 5 and scores == sorted(scores, reverse=True)
    rows = [part for block in stream for part in (block.train, block.valid, block.test)]
    had = {stream.items[int(item)] for part in rows for item in part.item[part.user == 0]}
    assert set(items) <= set(stream.items.tolist()) - had
    assert "'c9' is not among the" in refused("recommend", "run", "--user", "c9")
    sentence = refused("recommend", "run", "--user", stream.users[0], "--k", 1000)
    assert sentence.startswith("'k' is 1000, expected 1 to ")
    assert "serves nothing" in refused("recommend", "nowhere", "--user", 1)
    tensors = Path("run/served/tensors.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    assert "was altered" in refused("recommend", "run", "--user", stream.users[0])


def test_data_is_described_and_converted(tiny):
    rows = "".join(f"u{u},{i},{1_700_000_000 + 10 * i}\n" for u in range(4) for i in range(10))
    Path("rows.csv").write_text("who,item,time\n" + rows)
    options = ["--set", "user=who", "--set", "num_blocks=3"]
    shown = invoke("data", "describe", "rows.csv", *options).stdout
    assert [line.split()[0] for line in shown.splitlines() if "2023-11-14" in line] == list("0123")
    assert "protocol within, fingerprint " in shown
    assert "wrote 4 blocks" in invoke("data", "convert", "rows.csv", "native", *options).stdout
    assert f"fingerprint {fingerprint(read_stream('native'))}" in shown
    assert "rows" in invoke("data", "describe", "native").stdout
    assert "is not empty" in refused("data", "convert", "rows.csv", "native", *options)
    assert "unknown key 'usr'; did you mean 'user'?" in refused(
        "data", "describe", "rows.csv", "--set", "usr=who"
    )
    assert invoke("data", "describe", stream_folder()).stdout.count("\n") > 4


HEADER = "user,item,time\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("usr,item,time\n1,2,3\n", ["rows.csv", "no column known as the user", "user='usr'"]),
        ("user,thing,time\n1,2,3\n", ["rows.csv", "no column known as the item"]),
        (HEADER + "1,2,3\n1,2,soon\n", ["time in", "rows.csv", "row 2", "'soon'"]),
        (HEADER + "1,2,1700000000\n1,3,1700000000000\n", ["row 2", "time_unit"]),
        (HEADER + "1,2,1700000000\n1,3,2023-11-14\n", ["row 2", "a date or the reverse"]),
        (HEADER + "1,2,1e30\n", ["row 1", "out of range for a time"]),
        ("", ["rows.csv", "is empty"]),
        (HEADER, ["rows.csv", "has no rows"]),
        (HEADER + "nan,2,3\n", ["user in", "rows.csv", "row 1", "missing"]),
        (HEADER + "1,2,3\n1,-1,3\n", ["item in", "rows.csv", "row 2", "not negative"]),
        (HEADER + "1,,3\n", ["item in", "rows.csv", "row 1", "missing"]),
        (HEADER + "1,2,3\n1,2\n", ["rows.csv", "row 2: 2 fields, not 3"]),
        (HEADER + "1,2,3\n", ["block 0 of 'rows' would be empty|block 1 of 'rows' would be empty"]),
    ],
)
def test_bad_rows_are_one_sentence_that_names_the_place(tiny, text, words):
    Path("rows.csv").write_text(text)
    options = ["--set", "data.source=events", "--set", "data.path=rows.csv"]
    settings = TINY.split("[evaluate]")[1]
    Path("events.toml").write_text(f"[evaluate]{settings}")
    for command in (
        ["data", "describe", "rows.csv"],
        ["data", "convert", "rows.csv", "new"],
        ["run", "events.toml", *options],
    ):
        sentence = refused(*command)
        for word in words:
            assert any(choice in sentence for choice in word.split("|")), sentence
    assert not Path("new").exists() and not Path("runs").exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("-1,0,train\n", "row 1: the value is '-1'; ids number users by first appearance"),
        ("0,99999999999999999999,train\n", "item in|the id overflows 64 bits"),
        ("0,123456789012,train\n", "item in|ids number items by first appearance"),
        ("nan,0,train\n", "user in|row 1|missing"),
        ("0.5,0,train\n", "'0.5'; ids are whole numbers"),
        ("0,0,training\n", "split in|'training'; it must be train, valid or test"),
        ("0,0,test\n", "has no training rows"),
        ("", "has no rows"),
    ],
)
def test_bad_blocks_are_one_sentence_that_names_the_place(tiny, rows, words):
    (stream_folder() / "block_1.csv").write_text(f"user,item,split\n{rows}")
    options = ["--set", "data.source=presplit", "--set", "data.path=blocks"]
    Path("blocks.toml").write_text("[evaluate]\nks = [1]\n")
    for command in (["data", "describe", "blocks"], ["run", "blocks.toml", *options]):
        sentence = refused(*command)
        for word in (*words.split("|"), "block_1.csv"):
            assert word in sentence
    assert not Path("runs").exists()


def test_files_cut_in_half_are_named(tiny):
    folder = stream_folder()
    rows = "user,item,split\n" + "".join(f"{k % 90},{k % 77},train\n" for k in range(900))
    whole = gzip.compress(rows.encode())
    (folder / "block_1.csv").unlink()
    (folder / "block_1.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "block_1.csv.gz' is cut short or damaged" in refused("data", "describe", "blocks")
    (folder / "block_1.csv.gz").write_bytes(whole)
    invoke("data", "convert", "blocks", "native")
    path = Path("native/block_1.parquet")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "block_1.parquet' is cut short or damaged" in refused("data", "describe", "native")
    Path("stream.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "stream.csv.gz' is cut short" in refused("data", "describe", "stream.csv.gz")
    (folder / "block_0.csv").unlink()
    assert "'blocks' has no block_0.csv" in refused("data", "describe", "blocks")
    assert "nowhere.csv" in refused("data", "describe", "nowhere.csv")


def test_configurations_that_cannot_be_used_are_one_sentence(tiny):
    for override, words in (
        ("ccd.studnet.dim=3", "unknown key 'ccd.studnet'; did you mean 'student'?"),
        ("ccd.student.dim=wide", "'ccd.student.dim' is the str 'wide', expected int"),
        ("ccd.student", "override 'ccd.student' is not of the form"),
        ("ccd.student.backbone=LightGNC", "did you mean 'LightGCN'?"),
        ("ccd.student.backbone=no_such_module:GAT", "cannot import 'no_such_module'"),
        ("ccd.student.options.heads=2", "cannot be built with {'heads': 2}"),
        ("evaluate.ks=[1000]", "'evaluate.ks' asks for 1000 items"),
        ("data.num_blocks=0", "'num_blocks' 0"),
    ):
        sentence = refused("run", "tiny.toml", "--set", override)
        assert words in sentence
    assert "cannot read 'none.toml'" in refused("run", "none.toml")
    Path("broken.toml").write_text("[ccd\n")
    assert "'broken.toml' is not valid TOML" in refused("run", "broken.toml")
    assert not Path("runs").exists()


def test_a_loss_that_is_not_finite_is_one_sentence(tiny):
    options = ["--set", "ccd.base.fit.lr=1e30", "--set", "ccd.base.fit.epochs=3"]
    result = invoke("run", "tiny.toml", *options, code=2)
    assert "lower 'lr' (1e+30)" in result.stderr.splitlines()[-1]


def test_a_damaged_checkpoint_is_one_sentence(tiny):
    invoke("run", "tiny.toml", "--to", "run")
    path = Path("run/checkpoint/tensors.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "run/checkpoint/tensors.safetensors' has " in refused(
        "run", "tiny.toml", "--to", "run", "--resume"
    )


def test_bars_show_the_whole_run_and_the_time_left(tiny):
    config = load(RunConfig, "tiny.toml")
    stages = plan(config, open_stream(config.data))
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with watching(stages, console) as watcher:
        run(config, "run", watcher=watcher)
        bars = watcher.progress.tasks
        assert bars[0].finished and bars[0].completed == bars[0].total == sum(watcher.work)
    text = shown.getvalue()
    assert "the run" in text and "left" in text and "after block 1, recall@5" in text


def test_bars_of_a_resumed_run_start_where_it_stopped(tiny):
    config = load(RunConfig, "tiny.toml")
    stages = plan(config, open_stream(config.data))
    with watching(stages, Console(file=StringIO(), force_terminal=True)) as watcher:
        watcher.epoch("block 1 teacher 0", 1, 2)
        run_bar, stage_bar = watcher.progress.tasks
        place = [stage.label for stage in stages].index("block 1 teacher 0")
        expected = sum(watcher.work[:place]) + watcher.work[place] / 2
        assert run_bar.completed == int(expected) and run_bar.speed is None
        assert (stage_bar.completed, stage_bar.total) == (1, 2)


def test_bars_take_a_strategy_of_unplanned_stages(tiny):
    """A strategy names its stages itself; the plan knows of one a block."""
    data = load(RunConfig, "tiny.toml").data
    fit = {"epochs": 2}
    settings = {"backbone": {"dim": 2}, "base": {"fit": fit}, "fit": fit}
    evaluate = EvaluateConfig(ks=(5,))
    config = RunConfig(data=data, strategy="FineTune", settings=settings, evaluate=evaluate)
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with watching(plan(config, open_stream(config.data)), console) as watcher:
        run(config, "run", watcher=watcher)
        bars = watcher.progress.tasks
        assert bars[0].finished and bars[0].completed == bars[0].total == sum(watcher.work)


def test_doctor_names_versions_paths_and_advice(monkeypatch):
    shown = invoke("doctor").stdout
    found = dict(findings())
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    for name, value in found.items():
        assert name in shown and value in shown
    assert "torch CSR" in found["sparse products"]
    assert found["threads"].startswith(f"{torch.get_num_threads()} of ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dict(findings())["CUDA"] == "none; device = 'auto' computes on the CPU"
    assert advice()[0].startswith("a CUDA device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # A torch that is built for CUDA would ask the card that is not there what it can do.
    monkeypatch.setattr("ccdgraph.cli.doctor.without_kernels", lambda device: "no card")
    assert dict(findings())["CUDA"] == "a card, 2 in all; device = 'auto' computes on the first"
    assert not any("CUDA" in sentence for sentence in advice())
    monkeypatch.setattr("ccdgraph.cli.doctor.WITH_TORCH_SCATTER", False)
    assert dict(findings())["ragged reductions"].startswith("torch alone")
    assert any("make scatter" in sentence for sentence in advice())
    monkeypatch.setattr("ccdgraph.cli.doctor.WITH_TORCH_SCATTER", True)
    assert dict(findings())["ragged reductions"].startswith("torch-scatter")
    assert not any("make scatter" in sentence for sentence in advice())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert any("more threads than cores" in sentence for sentence in advice())


@pytest.mark.parametrize("name", ["yelp", "yelp_released"])
def test_the_yelp_benchmarks_load(name):
    path = Path(__file__).parents[1] / "benchmarks" / "configs" / f"{name}.toml"
    config = load(RunConfig, path)
    assert config.mask == "block" and config.data.source == "presplit"
    assert [teacher.dim for teacher in config.ccd.teachers] == [128] * 5
    assert config.ccd.student.dim == 8
    released = name == "yelp_released"
    assert config.ccd.graph == ("block" if released else "cumulative")
    for stage in ("update", "teacher"):
        assert len(getattr(config.ccd, stage).replay) == (5 if released else 1)
