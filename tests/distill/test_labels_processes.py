"""One writer, many readers, and writers that are killed."""

import multiprocessing
import os
import random
import re
import signal
import time

import pytest
import torch

from ccdgraph.distill.labels import LabelWriter, SoftLabels, read_labels, read_manifest

NUM_USERS, NUM_ITEMS, K = 400, 5000, 50
NUM_READERS = 8
SIZES = {"num_users": NUM_USERS, "num_items": NUM_ITEMS}


def expected(version: int, block: int) -> SoftLabels:
    """Labels that follow from their key, so that any reader knows what it must find."""
    draw = torch.Generator().manual_seed(1000 * version + block)
    first = torch.randint(NUM_ITEMS, (NUM_USERS, 1), generator=draw)
    lists = (first + torch.arange(K)) % NUM_ITEMS
    scores = torch.randn(NUM_USERS, K, generator=draw)
    everyone = torch.arange(NUM_USERS)
    return SoftLabels.from_lists(everyone, lists, scores, version=f"v{version}", block=block)


def check(folder, version: str, block: int) -> None:
    found = read_labels(folder, version, block).for_users(torch.arange(NUM_USERS))[0]
    wanted = expected(int(version[1:]), block)
    assert torch.equal(found.item, wanted.item)
    assert torch.equal(found.score, wanted.score)


def write_for_ever(folder, started) -> None:
    with LabelWriter(folder, {}) as writer:
        started.set()
        for number in range(len(writer.manifest.parts), 10_000):
            writer.write(expected(number // 3, number % 3), **SIZES)


def read_until(folder, stop, counts, place) -> None:
    draw = random.Random(place)
    while not stop.is_set():
        part = draw.choice(read_manifest(folder).parts)
        try:
            check(folder, part.version, part.block)
        except ValueError as error:  # retention may come between the two calls, damage may not
            assert "no labels of" in str(error)
        counts[place] += 1


@pytest.fixture(scope="module")
def processes():
    """Children are forked from a server that has imported everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ccdgraph.distill.labels"])
    return context


def test_a_writer_killed_at_any_moment_leaves_what_it_committed(tmp_path, processes):
    """Writing the manifest before the part fails."""
    draw, committed = random.Random(0), 0
    for _ in range(8):
        started = processes.Event()
        writer = processes.Process(target=write_for_ever, args=(tmp_path, started))
        writer.start()
        assert started.wait(60)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        parts = read_manifest(tmp_path).parts
        keys = [(part.version, part.block) for part in parts]
        assert keys == [(f"v{n // 3}", n % 3) for n in range(len(parts))]
        assert len(parts) >= committed
        committed = len(parts)
    assert committed > 0
    for part in parts:
        check(tmp_path, part.version, part.block)
    with LabelWriter(tmp_path, {}) as after:  # the lock went with its owner
        assert after.manifest.parts == parts
    left = {path.name for path in (tmp_path / "parts").iterdir()}
    assert left == {part.file for part in parts}


def test_eight_readers_never_see_half_a_part(tmp_path, processes):
    """Beside a writer that deletes old versions; a manifest that is written in place fails."""
    stop, counts = processes.Event(), processes.Array("i", NUM_READERS)
    with LabelWriter(tmp_path, {}) as writer:
        writer.write(expected(0, 0), **SIZES)
        readers = [
            processes.Process(target=read_until, args=(tmp_path, stop, counts, place))
            for place in range(NUM_READERS)
        ]
        for reader in readers:
            reader.start()
        number, deadline = 1, time.monotonic() + 60
        while min(counts) < 3 or number < 30:
            writer.write(expected(number // 3, number % 3), **SIZES)
            writer.retain(writer.manifest.versions[-2:])
            number += 1
            assert time.monotonic() < deadline, list(counts)
        stop.set()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0] * NUM_READERS


def test_a_second_writer_is_refused(tmp_path, processes):
    with LabelWriter(tmp_path, {}) as writer:
        message = rf"'{re.escape(str(tmp_path))}' has a writer already, process {os.getpid()}"
        with pytest.raises(ValueError, match=message):
            LabelWriter(tmp_path, {})
        started = processes.Event()
        second = processes.Process(target=write_for_ever, args=(tmp_path, started))
        second.start()
        second.join(60)
        assert second.exitcode == 1
        assert not started.is_set()
        writer.write(expected(0, 0), **SIZES)
    check(tmp_path, "v0", 0)
    LabelWriter(tmp_path, {}).close()
