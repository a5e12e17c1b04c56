import json

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.cli.serving import Format as OfferedFormat
from ccdgraph.config import to_dict
from ccdgraph.continual import FIREConfig
from ccdgraph.run import EvaluateConfig, RunConfig, Served, export, run
from ccdgraph.run.export import Format
from ccdgraph.run.serve import SERVED


def by_hand(tables, user, k):
    """The list of a user from the exported tensors alone."""
    scores = tables["item"] @ tables["user"][user]
    start, end = tables["seen_indptr"][user : user + 2]
    scores[tables["seen_item"][start:end]] = float("-inf")
    return torch.argsort(scores, descending=True, stable=True)[:k].tolist()


def ids(folder):
    return json.loads((folder / "vocabulary.json").read_text())


def expected(straight, user, k):
    served = Served.load(straight)
    return [item for item, _ in served.recommend(served.users[user], k)]


@pytest.mark.parametrize("user", [0, 7])
def test_safetensors_with_the_vocabulary_give_the_served_list(straight, tmp_path, user):
    export(straight, "safetensors", tmp_path / "out")
    tables, names = load_file(tmp_path / "out/embeddings.safetensors"), ids(tmp_path / "out")
    listed = [names["items"][item] for item in by_hand(tables, user, 5)]
    assert listed == expected(straight, user, 5)


def test_parquet_holds_ids_beside_their_rows(straight, tmp_path):
    paths = export(straight, "parquet", tmp_path / "out")
    assert [path.name for path in paths] == ["items.parquet", "seen.parquet", "users.parquet"]
    read = {path.stem: parquet.read_table(path).to_pydict() for path in paths}
    served = Served.load(straight)
    assert read["users"]["id"] == served.users.tolist()
    np.testing.assert_array_equal(read["items"]["embedding"], served.embeddings.item.numpy())
    user, item = read["seen"]["user"], read["seen"]["item"]
    owned = {name for owner, name in zip(user, item, strict=True) if owner == served.users[3]}
    _, wanted = served.seen.entries(torch.tensor([3]))
    assert owned == set(served.items[wanted.numpy()]) != set()


@pytest.mark.parametrize("user", [0, 7])
def test_faiss_gives_the_served_list(straight, tmp_path, user):
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    export(straight, "faiss", tmp_path / "out")
    index, names = faiss.read_index(str(tmp_path / "out/items.faiss")), ids(tmp_path / "out")
    served = Served.load(straight)
    _, seen = served.seen.entries(torch.tensor([user]))
    hidden = faiss.IDSelectorNot(faiss.IDSelectorBatch(seen.numpy()))
    query = served.embeddings.user[[user]].numpy()
    _, item = index.search(query, 5, params=faiss.SearchParameters(sel=hidden))
    assert [names["items"][i] for i in item[0]] == expected(straight, user, 5)


@pytest.mark.parametrize("users", [[0], [7, 2, 0]])
def test_onnx_gives_the_served_lists(straight, tmp_path, users):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    export(straight, "onnx", tmp_path / "out")
    model = ReferenceEvaluator(onnx.load(tmp_path / "out/recommend.onnx"))
    served, names = Served.load(straight), ids(tmp_path / "out")["items"]
    seen = [served.seen.entries(torch.tensor([user]))[1] for user in users]
    padded = torch.nn.utils.rnn.pad_sequence(seen, True, padding_value=len(names))
    asked = {
        "embedding": served.embeddings.user[users].numpy(),
        "hidden": padded.numpy(),
        "k": np.array([5]),
    }
    score, item = model.run(["score", "item"], asked)
    for place, user in enumerate(users):
        assert [names[i] for i in item[place]] == expected(straight, user, 5)
    assert (np.diff(score) <= 0).all()


def test_onnx_lists_equal_scores_by_ascending_row(straight, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    export(straight, "onnx", tmp_path / "out")
    model = ReferenceEvaluator(onnx.load(tmp_path / "out/recommend.onnx"))
    silent = np.zeros((1, Served.load(straight).embeddings.user.shape[1]), dtype=np.float32)
    asked = {"embedding": silent, "hidden": np.array([[1, 3]]), "k": np.array([4])}
    assert model.run(["item"], asked)[0].tolist() == [[0, 2, 4, 5]]


def test_a_strategy_without_embeddings_is_exported_as_lists(config, tmp_path):
    settings = to_dict(FIREConfig())
    fire = RunConfig(
        data=config.data, strategy="FIRE", settings=settings, evaluate=EvaluateConfig(ks=(5,))
    )
    run(fire, tmp_path / "run")
    paths = export(tmp_path / "run", "parquet", tmp_path / "out")
    assert [path.name for path in paths] == ["lists.parquet", "seen.parquet"]
    rows = parquet.read_table(paths[0]).to_pylist()
    served = Served.load(tmp_path / "run")
    mine = [(row["item"], row["score"]) for row in rows if row["user"] == served.users[4]]
    assert mine[:6] == served.recommend(served.users[4], 6)
    with pytest.raises(ValueError, match="serves no embeddings"):
        export(tmp_path / "run", "faiss", tmp_path / "other")
    assert not list(tmp_path.glob("*other*"))


def test_a_folder_in_use_and_a_run_that_serves_nothing_are_refused(straight, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; name a new folder"):
        export(straight, "parquet", tmp_path)
    with pytest.raises(ValueError, match="serves nothing"):
        export(tmp_path, "parquet", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_package_is_one_sentence(straight, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ValueError, match=r"needs onnx; pip install 'onnx' or 'ccdgraph\[serve\]'"):
        export(straight, "onnx", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_the_command_writes_beside_the_run_unless_told(copied, tmp_path):
    assert OfferedFormat == Format  # the command line must not import torch for its help
    done = CliRunner().invoke(app, ["export", str(copied), "--to", "safetensors"])
    assert done.exit_code == 0, done.output
    assert (copied / "export/safetensors/vocabulary.json").exists()
    assert (copied / SERVED).exists()


def test_a_new_user_is_served_on_the_command_line(straight):
    served = Served.load(straight)
    one, two = served.items[0], served.items[5]
    asked = ["recommend", str(straight), "--item", str(one), "--item", str(two), "--k", "3"]
    done = CliRunner().invoke(app, asked)
    listed = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert listed == [item for item, _ in served.recommend_new([one, two], 3)]
    both = CliRunner().invoke(app, [*asked, "--user", str(served.users[0])])
    assert both.exit_code == 2 and "either" in both.stderr
