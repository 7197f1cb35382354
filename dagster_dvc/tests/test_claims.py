"""One clone at a time has a claim; one that is gone loses it after its lease."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from dvc_objects.fs.local import FsspecLocalFileSystem

from dagster_dvc.claims import RENEWALS, Claims
from dagster_dvc.errors import UsageError

LEASE_S = 0.6


def clone(folder: Path, lease_s: float = LEASE_S) -> Claims:
    return Claims(FsspecLocalFileSystem(), str(folder / "claims"), lease_s)


def test_of_many_that_claim_at_once_one_has_it(tmp_path: Path):
    clones = [clone(tmp_path) for _ in range(8)]
    at_once, won = threading.Barrier(len(clones)), []

    def claim(each: Claims) -> None:
        at_once.wait()
        if each.take("key"):
            won.append(each)

    threads = [threading.Thread(target=claim, args=(each,)) for each in clones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (owner,) = won
    others = [each for each in clones if each is not owner]
    deadline = time.monotonic() + 1.3 * LEASE_S
    while time.monotonic() < deadline:
        assert all(each.holder("key") for each in others), "renewed for longer than a lease"
        time.sleep(LEASE_S / RENEWALS)
    owner.release()
    assert list((tmp_path / "claims").iterdir()) == []
    assert others[0].take("key")
    others[0].release()


def test_a_renewal_that_has_begun_does_not_bring_a_claim_back(tmp_path: Path):
    owner, begun = clone(tmp_path), threading.Event()
    write = owner._files.pipe_file

    def slow(path: str, content: bytes) -> None:
        begun.set()
        time.sleep(0.1)
        write(path, content)

    owner._files.pipe_file = slow
    assert owner.take("key")
    assert begun.wait(10)
    owner.release()
    time.sleep(0.2)
    assert list((tmp_path / "claims").iterdir()) == []


def test_the_claim_of_one_that_is_gone_ends(tmp_path: Path):
    gone, other, third = (clone(tmp_path) for _ in range(3))
    assert gone.take("key")
    gone._ended.set()  # as if it were killed: nothing renews
    started = time.monotonic()
    assert not other.take("key")
    other.wait(["key"])
    assert time.monotonic() - started >= LEASE_S
    assert third.holder("key") is not None, "by its own clock it has just seen it"
    assert other.take("key")
    third.wait(["other", "key"])
    assert not third.take("key"), "of two that see a claim end, one has the next"
    other.release()
    assert third.take("key")
    third.release()
    gone.release()
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_remote_that_replaces_objects_is_refused(tmp_path: Path):
    class Replacing(FsspecLocalFileSystem):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_bytes(value)

    with pytest.raises(UsageError, match="two clones could claim the same"):
        Claims(Replacing(), str(tmp_path / "claims"), LEASE_S).take("key")
    assert list((tmp_path / "claims").iterdir()) == []
