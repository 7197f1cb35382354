"""Shards on several devices, with phases that overlap. Devices are stood for by processes on the CPU: the same code runs with GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from projects import make_project, run_cells, tree_hash

from uss_dagster.artifacts.devices import DEVICES, PER_STAGE, device_names, leased_devices, map_devices
from uss_dagster.artifacts.phases import LOADERS, PhasedWork, overlapped
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.staging import Staging
from uss_dagster.errors import BadData, OutOfMemory, UsageError
from uss_dagster.planning.layout import Layout
from uss_dagster.runtime import DEVICE, torch_device
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.features import Features


def squares(jobs: Iterator[int]) -> Iterator[tuple[int, str, int]]:
    """(square of the job, its device, process)."""
    for job in jobs:
        if job == 13:
            raise BadData("job 13 is bad")
        if job == 14:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        yield job * job, os.environ[DEVICE], os.getpid()


def test_one_process_a_device():
    with closing(map_devices(squares, range(10), ["cpu", "cpu:0"])) as results:
        numbered = dict(results)
    assert [numbered[i][0] for i in range(10)] == [i * i for i in range(10)]
    assert {device for _, device, _ in numbered.values()} == {"cpu", "cpu:0"}
    assert len({process for _, _, process in numbered.values()} - {os.getpid()}) == 2


def test_one_device_needs_no_process():
    assert list(map_devices(squares, [3], ["cpu", "cpu:0"])) == [(0, (9, "cpu", os.getpid()))]
    assert DEVICE not in os.environ


@pytest.mark.slow
def test_an_error_ends_all_devices():
    with pytest.raises(BadData, match="job 13 is bad"):
        list(map_devices(squares, [1, 13, 2, 3], ["cpu", "cpu:0"]))


@pytest.mark.slow
def test_a_killed_process_of_a_device_is_said():
    with pytest.raises(OutOfMemory, match="A worker process of a device was ended from outside"):
        list(map_devices(squares, [14, 1, 2], ["cpu", "cpu:0"]))


def test_the_device_of_a_process_is_what_auto_means(monkeypatch):
    monkeypatch.setenv(DEVICE, "meta")
    assert str(torch_device("auto")) == "meta"
    monkeypatch.delenv(DEVICE)
    monkeypatch.setenv(DEVICES, "cpu,meta")
    assert str(torch_device("auto")) == "cpu"
    assert device_names() == ["cpu", "meta"]


LEASE = """
import sys, time
from uss_dagster.artifacts.devices import leased_devices
with leased_devices() as names:
    print(",".join(names), flush=True)
    time.sleep(60)
"""


def test_stages_that_run_at_once_share_the_devices(tmp_path, monkeypatch):
    """Two take one GPU each, the third waits until one of them ends, also where it is killed."""
    environment = {**os.environ, DEVICES: "cuda:0,cuda:1", PER_STAGE: "1", "TMPDIR": str(tmp_path)}
    stages = [subprocess.Popen([sys.executable, "-c", LEASE], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        assert sorted(stage.stdout.readline().strip() for stage in stages) == ["cuda:0", "cuda:1"]
        third = subprocess.Popen([sys.executable, "-c", LEASE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        stages.append(third)
        assert third.stderr.readline() == "note: other stages use all GPUs; waiting for one.\n"
        stages[0].kill()
        assert third.stdout.readline().strip() in ("cuda:0", "cuda:1")
    finally:
        for stage in stages:
            stage.kill()
            stage.wait()


def test_a_stage_takes_all_free_devices_and_a_wrong_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(DEVICES, "cuda:0, cuda:1")
    with leased_devices() as names:
        assert names == ["cuda:0", "cuda:1"]
    with leased_devices(most=1) as names:
        assert names == ["cuda:0"]
    assert os.environ[DEVICES] == "cuda:0, cuda:1"
    monkeypatch.setenv(PER_STAGE, "none")
    with pytest.raises(UsageError, match="expected a whole number"), leased_devices():
        pass


# -- phases -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Letters(PhasedWork[str, str, str, str]):
    """Writes the letters of an item, each with the device that computed it."""

    bad: str = ""

    def parts(self, item: str) -> list[str]:
        return list(item)

    def load(self, part: str) -> str:
        if part == self.bad:
            raise BadData(f"letter {part} cannot be read")
        return part.upper()

    def compute(self, item: str, inputs: list[str]) -> str:
        return "-".join(inputs)

    def write(self, item: str, computed: str, staging: Staging) -> float:
        staging.write(f"{item}.txt", lambda path: path.write_text(computed))
        return 1.0


def run_letters(private: Path, work: Letters) -> tuple[ShardTotals, dict[str, str]]:
    staging = Staging(private, "stage", None)
    jobs = [ShardJob((f"{item}.txt",), f"key-{item}", item, len(item)) for item in ("abc", "de", "f", "ghij")]
    totals = ShardRunner(staging, ShardStore(private / "shards")).run(jobs, work, on_device=True)
    return totals, {path.name: path.read_text() for path in staging.folder.iterdir()}


def test_phases_that_overlap_on_two_devices_give_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setenv(DEVICES, "cpu")
    totals, files = run_letters(tmp_path / "one", Letters())
    assert files == {"abc.txt": "A-B-C", "de.txt": "D-E", "f.txt": "F", "ghij.txt": "G-H-I-J"}
    assert totals == ShardTotals(images=10, seconds_computing=4.0)
    monkeypatch.setenv(DEVICES, "cpu,cpu")
    monkeypatch.setenv(LOADERS, "1")
    assert run_letters(tmp_path / "two", Letters()) == (totals, files)
    assert run_letters(tmp_path / "two", Letters()) == (ShardTotals(resumed=10), files)


def test_an_error_of_a_loader_ends_the_stage_with_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setenv(DEVICES, "cpu")
    monkeypatch.setenv(LOADERS, "1")
    with pytest.raises(BadData, match="letter g cannot be read"):
        run_letters(tmp_path, Letters(bad="g"))
    assert {path.name for path in Staging(tmp_path, "stage", None).folder.iterdir()} == {"abc.txt", "de.txt", "f.txt"}


def test_items_are_loaded_while_others_are_computed():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    seen = []
    for result in overlapped(items(), lambda item: [item], abs, lambda item, loaded: loaded[0], lambda item, computed: computed, 1):
        seen.append(result)
        assert max(taken) >= min(5, result + 2)
    assert seen == list(range(6))


RANDOM_VIT = """\
title: Features of a network
settings: {shard_images: 2}
datasets:
  scenes: {images: 6}
backbones:
  network: {kind: vit, model: dino_vits16, checkpoint: random, facets: [tokens, cls], image_size: 96}
metrics: [covering]
entries:
  kmeans: {backbone: network, params: {k: 4}}
"""


@pytest.mark.slow
def test_features_of_a_network_on_two_devices_have_the_same_bytes(tmp_path, monkeypatch):
    hashes = []
    for name, devices, loaders in (("one", "cpu", "0"), ("two", "cpu,cpu", "1")):
        root = make_project(tmp_path / name, RANDOM_VIT).root
        monkeypatch.setenv(DEVICES, devices)
        monkeypatch.setenv(LOADERS, loaders)
        run_cells(root, Datasets, Features)
        hashes.append(tree_hash(Layout(root).features("network", "scenes")))
    assert len(hashes[0]) == 6
    assert hashes[0] == hashes[1]
