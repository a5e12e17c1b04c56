"""RecBole's LightGCN on rows that ``peers.py`` has written, in an environment of its own.

    python benchmarks/parts/peers_recbole.py ROWS.npz FOUND.npz --epochs 20

``ROWS.npz`` holds train and test rows and the initial tables, ``FOUND.npz`` gets seconds of every
epoch and evaluation, the most bytes that training takes on a CUDA device, RecBole's own Recall@20
and the learnt embeddings. RecBole 1.2.1 is written for versions of NumPy and SciPy that ccdgraph
does not have (``requirements/recbole.txt``), so this file imports neither ccdgraph nor what needs
it. With newer ones it runs as well: the few names that it misses in them are put back here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import LightGCN
from recbole.trainer import Trainer
from recbole.utils import init_seed
from scipy.sparse import dok_matrix

COLUMNS = ("user", "item")


def put_back() -> None:
    """Names that RecBole reads and that NumPy 2 and SciPy 1.13 have no longer."""
    np.float_, np.complex_, np.unicode_ = np.float64, np.complex128, np.str_
    if "_update" not in dir(dok_matrix):
        dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)


def wait(device: str) -> float:
    """The clock once the device is idle; of the process alone where that is the CPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def write_atomic(folder: Path, rows: Any) -> None:
    """RecBole's files of train, validation and test rows; the second repeats the third."""
    for name in ("train", "valid", "test"):
        part = "train" if name == "train" else "test"
        pairs = np.stack([rows[f"{part}_{column}"] for column in COLUMNS], 1)
        path = folder / "rows" / f"rows.{name}.inter"
        path.parent.mkdir(exist_ok=True)
        header = "user_id:token\titem_id:token"
        np.savetxt(path, pairs, fmt="%d", delimiter="\t", header=header, comments="")


def settings(folder: Path, rows: Any, epochs: int, device: str) -> Config:
    """The settings that every peer has."""
    choice = {
        "data_path": str(folder),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": int(rows["user"].shape[1]),
        "n_layers": int(rows["layers"]),
        "learning_rate": float(rows["lr"]),
        "train_batch_size": int(rows["batch"]),
        "reg_weight": 0.0,
        "epochs": epochs,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "eval_args": {"order": "RO", "group_by": "user", "mode": "full"},
        "metrics": ["Recall"],
        "topk": [20],
        "valid_metric": "Recall@20",
        "eval_batch_size": 2**24,
        "use_gpu": device == "cuda",
        "gpu_id": "0" if device == "cuda" else "",  # what it goes by
        "show_progress": False,
        "state": "ERROR",
        "checkpoint_dir": str(folder),
        "seed": 0,
        "reproducibility": False,
    }
    return Config(model="LightGCN", dataset="rows", config_dict=choice)


def places(dataset: Any, field: str, num: int) -> np.ndarray:
    """RecBole's number of each of ours; 0, its padding, for an id without rows."""
    known = dataset.field2token_id[field]
    return np.array([known.get(str(entity), 0) for entity in range(num)])


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    put_back()
    rows = np.load(asked.rows)
    with tempfile.TemporaryDirectory() as folder:
        write_atomic(Path(folder), rows)
        config = settings(Path(folder), rows, asked.epochs, asked.device)
        init_seed(0, False)
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)
        model = LightGCN(config, train.dataset)
        tables = {"user": model.user_embedding, "item": model.item_embedding}
        place = {n: places(dataset, f"{n}_id", len(rows[n])) for n in COLUMNS}
        for name, table in tables.items():
            table.weight.data[place[name]] = torch.from_numpy(rows[name])
        trainer = Trainer(config, model.to(asked.device))
        epochs, evaluations = [], []
        for epoch in range(asked.epochs):
            started = wait(asked.device)
            trainer._train_epoch(train, epoch)
            epochs.append(wait(asked.device) - started)
        peak = torch.cuda.max_memory_allocated() if asked.device == "cuda" else 0
        for _ in range(3):
            model.restore_user_e = model.restore_item_e = None
            started = wait(asked.device)
            found = trainer.evaluate(test, load_best_model=False)
            evaluations.append(wait(asked.device) - started)
        with torch.no_grad():
            learnt = dict(zip(COLUMNS, model.forward(), strict=True))
        np.savez(
            asked.found,
            epochs=epochs,
            evaluation=statistics.median(evaluations),
            recall=found["recall@20"],
            peak=peak,
            **{name: learnt[name].cpu().numpy()[place[name]] for name in COLUMNS},
        )


if __name__ == "__main__":
    main()
