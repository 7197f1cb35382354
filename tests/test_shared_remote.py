"""Results on a server that speaks S3: pushed, pulled, damaged, shared between clones that compute at once; and what goes wrong with it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, copy_project, executed, make_project, of_results, tree_hash
from s3 import BUCKET, S3, s3_server

pytestmark = pytest.mark.slow
EACH_MACHINE = {"datasets/scenes", "site"}
"""Cells that are not pushed, for their licences: every clone computes them."""


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with s3_server(tmp_path / "s3.log") as server:
        yield server


def with_remote(project: Project, s3: S3) -> Project:
    """A project whose default remote is in the bucket; its keys are in the environment."""
    project.env |= s3.environment
    project.run("dvc", "remote", "add", "--default", "shared", f"s3://{BUCKET}/uss")
    project.run("dvc", "remote", "modify", "shared", "endpointurl", s3.url)
    return project


def git_clone(project: Project, root: Path) -> Project:
    """A clone as git makes it, planned."""
    identity = ("-c", "user.name=Tests", "-c", "user.email=tests@example.org")
    project.run("git", "add", "--all")
    project.run("git", *identity, "commit", "--quiet", "--allow-empty", "--message", "Results")
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(root)], check=True)
    clone = Project(root)
    clone.uss("plan")
    return clone


def results(project: Project) -> dict[str, str]:
    """Digest of every file that may be pushed."""
    parts = ("data/features", "data/segments", "data/scores", "reports/leaderboard")
    return {f"{part}/{name}": digest for part in parts for name, digest in tree_hash(project.root / part).items()}


def texts(root: Path) -> Iterator[tuple[Path, bytes]]:
    """What a project has written, but for the file that keys belong into."""
    for path in root.rglob("*"):
        if path.is_file() and path.name != "config.local":
            yield path, path.read_bytes()


def test_what_is_pushed_is_pulled_and_not_computed_again(built: Project, s3: S3, tmp_path: Path):
    with_remote(built, s3)
    pushed = built.run("dvc", "push", "--run-cache")
    second = git_clone(built, tmp_path / "second")
    for name, value in {"access_key_id": s3.key, "secret_access_key": s3.secret}.items():
        second.run("dvc", "remote", "modify", "--local", "shared", name, value)
    pulled = second.run("dvc", "pull", "--run-cache", "--allow-missing")
    done = second.uss("repro")
    assert set(executed(done.stdout)) == EACH_MACHINE
    assert of_results(second.locks()) == of_results(built.locks())
    assert results(second) == results(built)

    # An object that is damaged in the remote, and one that is gone.
    folder = second.root / "data/segments/kmeans/scenes"
    name = next(path for path in sorted(folder.glob("*.parquet")))
    (out,) = second.lock()["segments/kmeans/scenes"]
    (gone,) = second.lock()["leaderboard"]
    listing = next(text for key, text in s3.objects().items() if key.endswith(out["md5"][2:]))
    digest = re.search(rf'"md5": "(\w+)", "relpath": "{name.name}"', listing.decode())[1]
    client = s3.client()
    damaged = f"uss/files/md5/{digest[:2]}/{digest[2:]}"
    client.put_object(Bucket=BUCKET, Key=damaged, Body=b"damaged")
    client.delete_object(Bucket=BUCKET, Key=f"uss/files/md5/{gone['md5'][:2]}/{gone['md5'][2:]}")
    third = git_clone(built, tmp_path / "third")
    third.env |= s3.environment
    pull = third.run("dvc", "pull", "--run-cache", "--allow-missing", code=None)
    verified = third.uss("verify", "segments/kmeans/scenes", "leaderboard", code=65)
    assert f"data/segments/kmeans/scenes/{name.name} is damaged" in verified.stdout
    assert "reports/leaderboard is missing" in verified.stdout
    third.uss("verify", "--repair", "segments/kmeans/scenes", "leaderboard")
    assert results(third) == results(built)

    said = "".join(each.stdout + each.stderr for each in (pushed, pulled, done, pull, verified))
    assert s3.secret not in said
    assert s3.key not in said
    for path, text in (found for root in (built.root, second.root, third.root) for found in texts(root)):
        assert s3.secret.encode() not in text, path


def test_two_clones_at_once_compute_each_cell_in_one_of_them(s3: S3, tmp_path: Path, finished: Project):
    clones = [with_remote(make_project(tmp_path / name), s3) for name in ("first", "second")]
    command = ["uss", "repro", "--shared"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [subprocess.Popen(command, cwd=clone.root, env=clone.env, **options) for clone in clones]
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    counts = Counter(name for text in said for name in executed(text))
    assert counts == {name: 2 if name in EACH_MACHINE else 1 for name in finished.lock() if name != "plan"}, said
    first, second = clones
    assert of_results(first.locks()) == of_results(second.locks())
    assert results(first) == results(second) == results(finished)
    assert s3.objects("uss/claims") == {}
    assert all(s3.secret not in text and s3.key not in text for text in said)
    assert executed(first.uss("repro", "--shared").stdout) == []

    # A third that comes later computes only what every machine does itself; and Dagster's runs share too.
    third = with_remote(make_project(tmp_path / "third"), s3)
    third.append("params.yaml", "orchestration: {shared: true}\n")
    partition = ("--partition", "scenes", "-m", "uss_dagster.definitions")
    for asset in ("datasets", "features/patches", "segments/kmeans"):
        third.dagster("asset", "materialize", "--select", f'key:"{asset}"', *partition)
    assert {path.name for path in (third.root / ".uss/runs").rglob("*.json")} >= {"scenes.json"}
    assert not (third.root / ".uss/runs/segments").exists(), "what was restored was not computed"
    assert third.lock()["segments/kmeans/scenes"] == first.lock()["segments/kmeans/scenes"]


def test_a_remote_that_cannot_be_used_ends_with_one_sentence(built: Project, s3: S3, tmp_path: Path):
    wrong = with_remote(copy_project(built, tmp_path / "wrong"), s3)
    wrong.append("params.yaml", "entries:\n  kmeans: {params: {k: 5}}\n")
    wrong.env |= {"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "wrong-secret"}
    done = wrong.uss("repro", "--shared", "scores/kmeans/scenes", code=69)
    (sentence,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert sentence == (
        f"error: The remote 'shared' (s3://{BUCKET}/uss) cannot be used: The AWS Access Key Id you provided does not exist in our records. "
        "Nothing that was finished is lost."
    )
    assert "wrong-secret" not in done.stdout + done.stderr
    assert executed(done.stdout) == []
    assert wrong.uss("repro", "scores/kmeans/scenes").returncode == 0, "without sharing it needs no remote"

    gone = with_remote(copy_project(built, tmp_path / "gone"), s3)
    gone.append("params.yaml", "entries:\n  kmeans: {params: {k: 6}}\n")
    s3.process.kill()
    s3.process.wait()
    started = time.monotonic()
    done = gone.uss("repro", "--shared", "scores/kmeans/scenes", code=69)
    assert time.monotonic() - started < 120
    (sentence,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert sentence.startswith(f"error: The remote 'shared' (s3://{BUCKET}/uss) cannot be used: Could not connect to the endpoint URL")
    assert s3.secret not in done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("dvc_gs") is not None, reason="NOT TESTED: the sentence without dvc-gs, which is installed.")
def test_a_missing_extra_is_named(built: Project):
    built.run("dvc", "remote", "add", "--default", "shared", "gs://bucket/uss")
    sentence = "The remote 'shared' (gs://bucket/uss) needs a package that is not installed. Run `pip install dvc-gs`."
    done = built.uss("repro", "--shared", code=64)
    assert [line for line in done.stderr.splitlines() if line.strip()] == [f"error: {sentence}"]
    assert f"fix   remote             {sentence}\n" in built.uss("doctor", code=64).stdout
    (built.root / "reports/leaderboard/leaderboard.md").unlink()
    assert sentence in built.uss("verify", "--repair").stderr
    assert executed(built.uss("repro").stdout) == [], "without sharing it needs no remote"
