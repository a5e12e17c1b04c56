"""Seconds of CCD's stages on a stream.

    python benchmarks/stages.py benchmarks/configs/yelp.toml --set data.path=FOLDER --to stages.json

Checks first that recorded and eager training give the same student within the noise of summation
order, and that the accelerator agrees with the CPU. Then times every stage as often as asked, after
one run that does not count, the device idle before and after; the median is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccdgraph.config import load, rng, to_dict
from ccdgraph.continual import CCDConfig
from ccdgraph.continual.config import per_block
from ccdgraph.continual.generation import generate_student
from ccdgraph.continual.known import arrive
from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.scene import Scene
from ccdgraph.continual.stages import remember, update_student, update_teacher
from ccdgraph.data import Block, Stream, synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill.rrd import RRD
from ccdgraph.distill.teacher import Ensemble
from ccdgraph.nn import BackboneConfig, LightGCN
from ccdgraph.ranking import recommend_lists
from ccdgraph.run import RunConfig, open_stream
from ccdgraph.run.folder import hardware, versions
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.train import embed


def stages(config: CCDConfig, stream: Stream) -> dict[str, Callable[[], Any]]:
    """What to time: stage 1 at block 0, stages 2 and 3 (one teacher) at block 1.

    The teachers are untrained: the time of a stage does not depend on what they know.
    """
    base, first = stream[0], stream[1]
    cumulative = config.graph == "cumulative"
    at_base = Scene(base, arrive(None, base, cumulative=cumulative), config, (0, "base"))
    known = arrive(at_base.known, first, cumulative=cumulative, decay=config.decay)
    at_first = Scene(first, known, config, (0, "first"))
    teachers = [at_base.build(member) for member in config.teachers]
    ensemble = Ensemble([embed(teacher, at_base.known.graph) for teacher in teachers])
    student = at_base.build(config.student)
    served = embed(student, at_base.known.graph)
    proxies = {"stability": served, "plasticity": served}

    def third() -> Any:
        sources = proxies | {"student": served}
        memories = remember(at_first, sources, per_block(config.teacher.replay, 1))
        neighbours = Neighbours.of(at_base.known.graph, mean_degree=config.teacher.mean_degree)
        return update_teacher(at_first, teachers[0], memories, neighbours)

    return {
        "stage 1 at block 0": lambda: generate_student(at_base, ensemble, None, []),
        "stage 2 at block 1": lambda: update_student(at_first, student, proxies),
        "stage 3 at block 1, one teacher": third,
    }


def recording(config: CCDConfig, record: bool) -> CCDConfig:
    """``config`` with recorded steps in every stage, or in none."""
    changed = {}
    for name in ("base", "generation", "update", "teacher"):
        stage = getattr(config, name)
        changed[name] = replace(stage, fit=replace(stage.fit, record=record))
    return replace(config, **changed)


def check(device: torch.device) -> dict[str, float]:
    """Relative differences: of terms and gradients to the CPU, of recorded training to eager."""
    block = synthetic_stream(300, 200, 6000, num_blocks=1)[0]
    found = [_terms(block, torch.device("cpu")), _terms(block, device)]
    differences = {name: _distance(found[1][name], found[0][name]) for name in found[0]}
    if device.type == "cuda":
        stream = synthetic_stream(300, 200, 6000, num_blocks=1).to(device)
        small = CCDConfig(teachers=(BackboneConfig(dim=16),), student=BackboneConfig(dim=8))
        eager, recorded = (stages(recording(small, record), stream) for record in (False, True))
        for name in eager:
            tables = [torch.cat([*run[name]().parameters()]).detach() for run in (recorded, eager)]
            differences[f"{name}, recorded to eager"] = _distance(*tables)
    return differences


def _terms(block: Block, device: torch.device) -> dict[str, Tensor]:
    """Embeddings, losses and gradients of one batch, the same numbers on every device."""
    sizes, block = (block.num_users, block.num_items), block.to(device)
    graph = BipartiteGraph.from_interactions(block.train, *sizes)
    old, new = (LightGCN(*sizes, 16, generator=rng("check", k), std=1.0) for k in (0, 1))
    served, out = embed(old.to(device), graph), new.to(device)(graph)
    lists = recommend_lists(served, torch.arange(sizes[0], device=device), 20, graph.user_items)[1]
    batch = Triplets(block.train.user[:512], block.train.item[:512], block.train.item[:512, None])
    terms = {
        "RRD": RRD(lists, graph.user_items)(out, Entities(torch.arange(128, device=device))),
        "LWC-KD": LWCKD(served, Neighbours.of(graph), weight=None)(out, batch),
    }
    found = {"embeddings": torch.cat([served.user, served.item]).cpu()}
    for name, loss in terms.items():
        gradient = torch.autograd.grad(loss, list(new.parameters()), retain_graph=True)
        found |= {name: loss.detach().cpu(), f"{name}, gradient": torch.cat(gradient).cpu()}
    return found


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def measure(stage: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each repeat after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        stage()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main() -> None:
    """Check, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="time steps launched one by one too")
    asked = parser.parse_args()
    config = load(RunConfig, asked.config, asked.set)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stream = open_stream(config.data).to(device)
    result: dict[str, Any] = {
        "config": to_dict(config),
        "hardware": hardware(),
        "versions": versions(),
        "differences": check(device),
        "seconds": {},
    }
    recorded = device.type == "cuda"
    for record in (False, True) if recorded and asked.eager else (recorded,):
        for name, stage in stages(recording(config.ccd, record), stream).items():
            seconds = measure(stage, asked.repeats)
            key = f"{name}, {'recorded' if record else 'eager'}"
            result["seconds"][key] = seconds
            print(f"{key:45s} {statistics.median(seconds):8.3f} s", flush=True)
    for name, value in result["differences"].items():
        print(f"{name:60s} {value:.1e}")
    asked.to.parent.mkdir(parents=True, exist_ok=True)
    asked.to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
