"""Ready-made maps: both file forms, where they are looked for, and one clear sentence for everything that can be missing or wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.methods import ucm

UCM2 = np.zeros((5, 9))
UCM2[:, 4] = 0.6  # the image in halves
UCM2[2, 5:] = 0.2  # and the right one in halves again
SAMPLE = Sample("7", np.zeros((2, 4, 3), np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "maps"
    target.mkdir()
    values, index = np.unique(UCM2, return_inverse=True)
    np.savez(target / "7.npz", values=values, index=index.reshape(UCM2.shape).astype(np.uint16))
    savemat(target / "7.mat", {"ucm2": UCM2})
    return target


@pytest.mark.parametrize("pattern", ["{image_id}.npz", "{image_id}.mat"])
def test_reads_both_forms(folder: Path, pattern: str) -> None:
    regions = ucm.segment(SAMPLE, ucm.Params(str(folder), pattern))
    assert regions.parent.tolist() == [-1, 0, 0, 2, 2]
    assert regions.level.tolist() == pytest.approx([0.6, 0, 0.2, 0, 0])
    assert regions.deepest().tolist() == [[1, 1, 3, 3], [1, 1, 4, 4]]
    assert set(regions.source) == {"ucm"}
    assert regions.is_root.tolist() == [True, False, False, False, False]


def test_looks_below_the_mirror(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USS_MIRROR", str(folder.parent))
    assert len(ucm.segment(SAMPLE, ucm.Params("maps"))) == 5
    with pytest.raises(Unavailable, match=f"{folder.parent}/bsds500/ucm2/test is no folder"):
        ucm.segment(SAMPLE, ucm.Params())
    monkeypatch.delenv("USS_MIRROR")
    with pytest.raises(Unavailable, match="USS_MIRROR, which is not set"):
        ucm.segment(SAMPLE, ucm.Params())


def test_what_is_missing_or_wrong(folder: Path) -> None:
    params = ucm.Params(str(folder))
    with pytest.raises(Unavailable, match=r"Image '8' has no ready-made map: .*8\.npz"):
        ucm.segment(Sample("8", SAMPLE.image), params)
    with pytest.raises(BadData, match=r"a map of \(5, 9\), but image '7' of \(3, 4\)"):
        ucm.segment(Sample("7", np.zeros((3, 4, 3), np.uint8)), params)
    with pytest.raises(Unavailable, match="is no folder"):
        ucm.segment(SAMPLE, ucm.Params(str(folder / "elsewhere")))
    (folder / "7.npz").write_bytes(b"not an archive")
    with pytest.raises(BadData, match="arrays values and index"):
        ucm.segment(SAMPLE, params)
    savemat(folder / "7.mat", {"ucm": UCM2})
    with pytest.raises(BadData, match="the variable ucm2"):
        ucm.segment(SAMPLE, ucm.Params(str(folder), "{image_id}.mat"))
    for pattern in ("maps.npz", "{image_id}.png", "{image_id}{image_id}.mat"):
        with pytest.raises(UsageError, match="once and the ending"):
            ucm.Params(str(folder), pattern)


def test_pinned_listing(folder: Path) -> None:
    np.savez(folder / "10.npz", values=np.zeros(1), index=np.zeros((3, 3), np.uint16))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in ("10.npz", "7.npz")]
    pin = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert len(ucm.segment(SAMPLE, ucm.Params(str(folder), sha256=pin))) == 5
    with pytest.raises(BadData, match=f"listing sha256 {pin}, but the entry pins {'0' * 64}"):
        ucm.segment(SAMPLE, ucm.Params(str(folder), sha256="0" * 64))


def test_says_what_it_is() -> None:
    assert ucm.SPEC.supervised
    assert not ucm.SPEC.reimplementation
    assert not ucm.SPEC.needs
