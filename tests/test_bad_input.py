"""Whatever goes wrong, a person reads one sentence, a scheduler reads the exit code, and nothing that was finished is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from disks import fill, mounted
from PIL import Image
from projects import BIN, Project, executed, make_project, of_results, tree_hash

BSDS = """\
datasets:
  bsds500: {split: test}
metrics: [matching]
entries:
  felzenszwalb: {params: {scales: 2}}
"""


SEGMENTS_CELL = "pipelines/scenes/slic_merge/segments.yaml"
KMEANS_CELL = "pipelines/scenes/kmeans/segments.yaml"
PHOTOS_CELL = "pipelines/bsds500/datasets.yaml"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence; that it is one, and no traceback beside it, is checked here."""
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("error: ")


def published(project: Project) -> list[dict[str, str]]:
    return [tree_hash(project.root / part) for part in ("data", "reports")]


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["stage", "pipelines/scenes/slic_merge/segment.yaml"],
            "pipelines/scenes/slic_merge/segment.yaml does not exist. If you just added an entry or a dataset, run `uss plan`.",
        ),
        (["stage", "pipelines/scenes"], "pipelines/scenes does not exist."),
        (["stage", "params.yaml"], "params.yaml: Unknown stage 'None'."),
        (["plan", "--profile", "smal"], "--profile: Unknown profile 'smal'. Did you mean 'small'?"),
        (
            ["repro", "segments/slic_merg/scenes"],
            "Unknown stage 'segments/slic_merg/scenes'. Did you mean 'segments/slic_merge/scenes'?",
        ),
        (["repro", "segment"], "Unknown stage 'segment'. Did you mean 'segments'?"),
    ],
)
def test_unknown_names(project: Project, words, said):
    assert said in refused(project.uss_here(*words, code=64))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stage: segments", "stage: segment", "Unknown stage 'segment'. Did you mean 'segments'? Run `uss plan`, which writes this file."),
        ("shard_images: 2", "shard_images: two", "shard_images: Input should be a valid integer"),
        ("shard_images: 2", "shards: 2", "shard_images: Field required. Run `uss plan`, which writes this file."),
        ("title:", "colour: red\ntitle:", "colour: Extra inputs are not permitted. Run `uss plan`, which writes this file."),
        ("shard_images: 2", "shard_images: [", "not valid YAML"),
    ],
)
def test_a_cell_that_was_edited_by_hand(project: Project, old, new, message):
    project.edit(SEGMENTS_CELL, old, new)
    sentence = refused(project.uss_here("stage", SEGMENTS_CELL, code=64))
    assert sentence.startswith(SEGMENTS_CELL)
    assert message in sentence
    project.uss_here("plan")
    project.uss_here("plan", "--check")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("entries:\n  slick_merge: {backbone: patches}\n", "params.yaml:3: Unknown method 'slick_merge'. Did you mean 'slic_merge'?"),
        ("entries:\n  kmean: false\n", "params.yaml:3: 'kmean' is switched off, but no 'kmean' is in entries. Did you mean 'kmeans'?"),
        ("entries:\n  mine: {method: kmeans, backbone: vits}\n", "params.yaml:3: Unknown backbone 'vits'. Did you mean 'vit'?"),
        ("datasets:\n  scene: {}\n", "params.yaml:3: Unknown dataset 'scene'. Did you mean 'scenes'?"),
        ("settings: {sampels: 3}\n", "params.yaml:2: settings has no setting 'sampels'. Did you mean 'samples'?"),
        ("entries: [\n", "params.yaml:3: not valid YAML"),
        ("\tentries: {}\n", "params.yaml:2: not valid YAML"),
        ("entries:\n  a: {}\n  a: {}\n", "params.yaml:4: 'a' stands twice (first in line 3)."),
        ("entries: \x00\n", "params.yaml"),
        ("datasets:\n  scenes: {images: .nan}\n", "params.yaml:3: dataset 'scenes': parameter 'images' is nan, expected int."),
    ],
)
def test_broken_params(project: Project, text, said):
    before = tree_hash(project.root / "pipelines"), (project.root / "dvc.yaml").read_bytes()
    project.append("params.yaml", text)
    for command in ("plan", "repro"):
        assert said in refused(project.uss_here(command, code=64))
    assert (tree_hash(project.root / "pipelines"), (project.root / "dvc.yaml").read_bytes()) == before


def test_params_that_are_not_text(project: Project):
    (project.root / "params.yaml").write_bytes(b"profile: \xff\xfe\n")
    assert "params.yaml is not UTF-8 text" in refused(project.uss("plan", code=64))


@pytest.mark.parametrize("workers", ["nonsense", "0", "-1", "1.5"])
def test_a_nonsense_number_of_workers(built: Project, workers):
    said = refused(built.uss_here("stage", KMEANS_CELL, code=64, USS_WORKERS=workers))
    assert said == f"USS_WORKERS is '{workers}', expected a whole number of at least 1."


# -- a source with damage in it ------------------------------------------------------------------------------------------


def write_bsds(mirror: Path, ids: tuple[str, ...] = ("100", "200")) -> Path:
    """A small mirror in the layout of BSDS500; returns its data folder."""
    from scipy.io import savemat

    data = mirror / "bsds500" / "data"
    for part in ("images", "groundTruth"):
        (data / part / "test").mkdir(parents=True)
    for number, image_id in enumerate(ids):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)).save(
            data / "images/test" / f"{image_id}.jpg"
        )
        write_truth(data, image_id, (40, 60), savemat)
    return data


def write_truth(data: Path, image_id: str, shape: tuple[int, int], savemat) -> None:
    labels = np.ones(shape, np.uint16)
    labels[:, 20:] = 2
    cell = np.empty((1, 2), object)
    for annotator in range(2):
        cell[0, annotator] = {"Segmentation": labels, "Boundaries": labels > 5}
    savemat(data / "groundTruth/test" / f"{image_id}.mat", {"groundTruth": cell})


@pytest.fixture
def photos(tmp_path: Path) -> Project:
    """A project over the BSDS500 adapter, its mirror beside it."""
    project = make_project(tmp_path / "project", BSDS)
    write_bsds(tmp_path / "mirror")
    project.env["USS_MIRROR"] = str(tmp_path / "mirror")
    return project


def test_a_good_mirror_works(photos: Project):
    photos.uss("stage", PHOTOS_CELL)
    assert json.loads((photos.root / "data/datasets/bsds500/manifest.json").read_text())["counts"] == {"images": 2, "regions": 8}


def test_no_mirror(photos: Project):
    del photos.env["USS_MIRROR"]
    said = refused(photos.uss("stage", PHOTOS_CELL, code=69))
    assert said.startswith("Dataset 'bsds500' is not here: USS_MIRROR is not set. Fetch BSR_bsds500.tgz")
    assert "has no folder 'bsds500'" in refused(photos.uss("stage", PHOTOS_CELL, code=69, USS_MIRROR=str(photos.root)))


def _other_size(data: Path) -> None:
    from scipy.io import savemat

    write_truth(data, "200", (60, 40), savemat)


def _truncated(data: Path) -> None:
    path = data / "images/test/200.jpg"
    path.write_bytes(path.read_bytes()[:700])


SOURCES = {
    "mask of another size": (_other_size, "BSDS500 image 200 is 60×40 pixels, but its annotator 0 drew on 40×60."),
    "truncated image": (_truncated, "images/test/200.jpg is truncated or damaged"),
    "empty image": (lambda data: (data / "images/test/200.jpg").write_bytes(b""), "images/test/200.jpg is empty (0 bytes)"),
    "not an image": (lambda data: (data / "images/test/200.jpg").write_text("<html>"), "images/test/200.jpg is not a picture"),
    "no mask": (lambda data: (data / "groundTruth/test/200.mat").unlink(), "BSDS500 image 200 has no ground truth"),
    "broken mask": (lambda data: (data / "groundTruth/test/200.mat").write_bytes(b"x" * 500), "200.mat is not a BSDS500 ground truth file"),
    "no images": (lambda data: shutil.rmtree(data / "images/test"), "images/test holds no <number>.jpg"),
    "same image twice": (
        lambda data: shutil.copy(data / "images/test/100.jpg", data / "images/test/200.jpg"),
        "'100' and '200' are byte-equal",
    ),
}


@pytest.mark.parametrize("what", SOURCES)
def test_a_damaged_source(photos: Project, tmp_path, what):
    damage, said = SOURCES[what]
    damage(tmp_path / "mirror/bsds500/data")
    done = photos.uss_here("stage", PHOTOS_CELL, code=65)
    assert said in refused(done)
    assert not (photos.root / "data/datasets/bsds500").exists()
    event = json.loads(done.stdout.splitlines()[-1])
    assert (event["event"], event["exit_code"]) == ("error", 65)
    assert said in event["message"]


# -- artefacts with damage in them ------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    """Half of a file, as a new file: the old one may be linked to DVC's cache."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.unlink()
    path.write_bytes(data)


FEATURES, SEGMENTS, DATASET = "data/features/patches/scenes", "data/segments/slic_merge/scenes", "data/datasets/scenes"
DAMAGED = {
    "features shard cut": (_cut, f"{FEATURES}/shard-00000.safetensors", "segments", 65, "its manifest says"),
    "features shard gone": (Path.unlink, f"{FEATURES}/shard-00000.safetensors", "segments", 65, "is missing"),
    "features header lost": (lambda p: _head(p), f"{FEATURES}/shard-00000.safetensors", "segments", 65, "is not what its stage wrote"),
    "features manifest gone": (Path.unlink, f"{FEATURES}/manifest.json", "segments", 75, "is not there"),
    "features index cut": (_cut, f"{FEATURES}/index.parquet", "segments", 65, "its manifest says"),
    "image index flipped": (_flip, f"{DATASET}/images/images.parquet", "segments", 65, "is not what its stage wrote"),
    "image shard flipped": (_flip, f"{DATASET}/images/shard-00000.tar", "segments", 65, "is not what was written"),
    "image shard gone": (Path.unlink, f"{DATASET}/images/shard-00000.tar", "segments", 65, "is missing"),
    "segments shard cut": (_cut, f"{SEGMENTS}/shard-00000.parquet", "scores", 65, "its manifest says"),
    "segments shard flipped": (_flip, f"{SEGMENTS}/shard-00000.parquet", "scores", 65, "shard-00000.parquet"),
    "segments manifest broken": (_cut, f"{SEGMENTS}/manifest.json", "scores", 65, "is not JSON"),
    "truth gone": (Path.unlink, f"{DATASET}/truth/regions.parquet", "scores", 65, "is missing"),
    "truth flipped": (_flip, f"{DATASET}/truth/regions.parquet", "scores", 65, "regions.parquet"),
}


def _head(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(b"\xff" * 64 + data[64:])


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_artefact_is_named_with_what_to_do(built: Project, what):
    damage, path, stage, code, said = DAMAGED[what]
    target = built.root / "data" / stage / "slic_merge" / "scenes"
    before = tree_hash(target)
    damage(built.root / path)
    sentence = refused(built.uss_here("stage", f"pipelines/scenes/slic_merge/{stage}.yaml", code=code))
    assert said in sentence
    assert Path(path).name in sentence or Path(path).parent.name in sentence
    assert any(remedy in sentence for remedy in ("dvc checkout", "stage again", "uss verify --repair"))
    if "segments" not in path:
        assert tree_hash(target) == before


@pytest.mark.slow
def test_what_the_sentence_says_repairs_it(built: Project):
    before = tree_hash(built.root / FEATURES)
    _cut(built.root / FEATURES / "shard-00000.safetensors")
    assert "dvc checkout --force" in refused(built.uss("stage", SEGMENTS_CELL, code=65))
    built.dvc("checkout", "--force")
    assert tree_hash(built.root / FEATURES) == before
    built.uss("stage", SEGMENTS_CELL)


# -- tools that are missing ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_git_repository(project: Project):
    shutil.rmtree(project.root / ".git")
    env = {"GIT_CEILING_DIRECTORIES": str(project.root.parent)}
    said = refused(project.uss("repro", "datasets/scenes", code=64, **env))
    assert said == (
        f"DVC needs git here, and {project.root} is not a git repository. Run `git init`, or go without: "
        "`dvc config --local core.no_scm true`."
    )
    project.dvc("config", "--local", "core.no_scm", "true", **env)
    assert project.repro("datasets/scenes", **env) == ["datasets/scenes"]


def test_without_the_git_program(project: Project, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "env"):
        (programs / name).symlink_to(shutil.which(name) or "")
    said = refused(project.uss("repro", "datasets/scenes", code=64, PATH=str(programs)))
    assert "DVC needs git here, and git is not installed." in said


HIDE = """\
import importlib.util
_find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition('.')[0] == 'dvc' else _find(name, package)
"""


@pytest.mark.parametrize("command", ["repro", "demo", "ui"])
def test_without_dvc(project: Project, tmp_path, command):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(HIDE)
    said = refused(project.uss(command, code=64, PYTHONPATH=f"{tmp_path / 'shim'}{os.pathsep}{project.root}"))
    assert said.startswith("DVC is not installed beside uss. Run `pip install uss_dagster` (in a clone `make setup`)")


def test_without_dvc_folder(project: Project):
    shutil.rmtree(project.root / ".dvc")
    assert "has no .dvc folder. Run `dvc init` there" in refused(project.uss("repro", code=64))


# -- a full disk -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_disk_of_the_results_fills_up(built: Project, tmp_path):
    """Results on one disk, work on another: the old result stays until the new one stands beside it."""
    with mounted(tmp_path / "disk", "size=3m") as disk:
        folder = built.root / SEGMENTS
        shutil.copytree(folder, disk / "scenes")
        shutil.rmtree(folder.parent)
        folder.parent.symlink_to(disk)
        before, lock = published(built), built.locks()
        filling = fill(disk)
        said = refused(built.uss("stage", SEGMENTS_CELL, code=75))
        assert said.startswith("The disk is full")
        assert said.endswith("Free some space and run the same command again; nothing that was finished is lost.")
        filling.unlink()
        assert published(built) == before
        assert sorted(p.name for p in disk.iterdir()) == ["scenes"]
        built.uss("stage", SEGMENTS_CELL)
        assert published(built) == before
        assert built.locks() == lock


@pytest.mark.parametrize(
    "file",
    [
        pytest.param("pipelines/scenes/features-patches.yaml", marks=pytest.mark.slow),
        "pipelines/scenes/kmeans/segments.yaml",
        pytest.param("pipelines/scenes/kmeans/scores.yaml", marks=pytest.mark.slow),
        pytest.param("pipelines/scenes/datasets.yaml", marks=pytest.mark.slow),
    ],
)
def test_the_disk_of_the_work_fills_up(built: Project, tmp_path, file):
    """Work and results on their own full disk: both survive, and the same command succeeds once there is space."""
    with mounted(tmp_path / "disk", "size=24m") as disk:
        for name in ("data", ".uss", "reports"):
            shutil.copytree(built.root / name, disk / name)
            shutil.rmtree(built.root / name)
            (built.root / name).symlink_to(disk / name)
        before, lock = published(built), built.locks()
        filling = fill(disk)
        said = refused(built.uss("stage", file, code=75))
        assert said.startswith("The disk is full")
        assert published(built) == before
        filling.unlink()
        built.uss("stage", file)
        assert published(built) == before
        assert built.locks() == lock


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 30_000])
def test_the_disk_of_dvc_s_cache_fills_up(built: Project, tmp_path, free):
    """DVC itself ends with 255 and leaves temporary files. free: bytes; for some of the files, or for none."""
    with mounted(tmp_path / "disk", "size=8m") as disk:
        cache = built.root / ".dvc/cache"
        shutil.copytree(cache, disk / "cache")
        shutil.rmtree(cache)
        cache.symlink_to(disk / "cache")
        built.append("params.yaml", "entries:\n  kmeans: {params: {k: 5}}\n")
        stranger = disk / "cache/files/md5/.another-process.tmp"
        stranger.touch()
        filling = fill(disk)
        os.truncate(filling, filling.stat().st_size - free)
        said = refused(built.uss("repro", "segments/kmeans/scenes", code=75))
        assert said.startswith("The disk is full")
        assert list((disk / "cache").rglob("*.tmp")) == [stranger], "only files of other processes"
        filling.unlink()
        built.uss("repro", "segments/kmeans/scenes")
        assert built.uss("verify", "segments").stdout.endswith("are what dvc.lock records.\n")


# -- two at once, and interrupted ------------------------------------------------------------------------------------------


def slow_down(project: Project, seconds: int) -> None:
    """Make the segments stage wait in each shard where SLOW is set."""
    project.edit(
        "uss_dagster/stages/segments.py",
        "    tables, seconds = [], 0.0\n",
        f'    if __import__("os").environ.get("SLOW"):\n        time.sleep({seconds})\n    tables, seconds = [], 0.0\n',
    )
    project.uss("plan")


def wait_for(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def in_folder(folder: Path) -> list[psutil.Process]:
    """Living processes whose working folder is the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("first", ["uss", "dvc"])
def test_a_busy_project_is_waited_for(built: Project, first):
    slow_down(built, 3)
    words = [str(BIN / "uss"), "repro"] if first == "uss" else [sys.executable, "-m", "dvc", "repro"]
    running = subprocess.Popen(
        [*words, "segments/felzenszwalb/scenes" if first == "uss" else "pipelines/scenes/felzenszwalb/dvc.yaml:segments"],
        cwd=built.root,
        env={**built.env, "SLOW": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (built.root / ".uss/work/segments/felzenszwalb/scenes").exists(), "the first run never reached its stage")
    second = built.uss("repro", "segments/kmeans/scenes")
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert "Traceback" not in output + errors + second.stdout + second.stderr
    assert executed(output) == ["segments/felzenszwalb/scenes"]
    assert executed(second.stdout) == ["segments/kmeans/scenes"]
    assert json.loads(built.dvc("status", "--json").stdout).keys() <= {
        f"pipelines/scenes/{entry}/dvc.yaml:{stage}"
        for entry, stage in (("slic_merge", "segments"), *((entry, "scores") for entry in ("kmeans", "felzenszwalb", "slic_merge")))
    }


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow), pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_interrupted_stage_publishes_nothing_and_leaves_nobody(built: Project, how):
    slow_down(built, 60)
    before = published(built)
    env = {**built.env, "SLOW": "1", "USS_WORKERS": "2"}
    run = subprocess.Popen(
        [str(BIN / "uss"), "stage", KMEANS_CELL],
        cwd=built.root,
        env=env,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    wait_for(lambda: len(in_folder(built.root)) >= 4, "the workers never started")  # the stage, a tracker, two workers
    time.sleep(1)
    if how == signal.SIGINT:
        os.killpg(run.pid, how)  # as Ctrl-C: everyone in the foreground gets it
    else:
        run.send_signal(how)
    _, errors = run.communicate(timeout=10)
    assert run.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[how]
    assert "Traceback" not in errors
    wait_for(lambda: not in_folder(built.root), "processes were left running", 5)
    assert published(built) == before
    built.uss("stage", KMEANS_CELL)
    assert published(built) == before


@pytest.mark.slow
def test_an_interrupted_repro_leaves_nobody(built: Project):
    slow_down(built, 60)
    lock = of_results(built.locks())
    env = {**built.env, "SLOW": "1", "USS_WORKERS": "2"}
    run = subprocess.Popen(
        [str(BIN / "uss"), "repro", "segments/kmeans/scenes"],
        cwd=built.root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(in_folder(built.root)) >= 6, "the workers never started")
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=20)
    assert run.returncode not in (0, None)
    assert "Traceback" not in errors
    wait_for(lambda: not in_folder(built.root), "processes were left running", 5)
    assert of_results(built.locks()) == lock
    assert built.repro("segments/kmeans/scenes") == ["segments/kmeans/scenes"]


# -- `uss repro` as a whole ------------------------------------------------------------------------------------------------


def test_a_failed_repro_has_the_exit_code_of_its_stage_and_loses_nothing(built: Project):
    """DVC removes the outputs of a stage before it runs, and exits with 255 whatever happened; `uss repro` mends both."""
    before, lock = published(built), built.locks()
    built.edit(
        "uss_dagster/stages/segments.py", "        report = validate(", "        raise BadData('It broke.')\n        report = validate("
    )
    assert refused(built.uss("repro", code=65)) == "It broke."
    assert published(built) == before
    after = built.locks()
    assert after.pop("pipelines/dvc.lock") != lock.pop("pipelines/dvc.lock"), "the check of the plan has seen the edit"
    assert after == lock


@pytest.mark.slow
def test_a_full_disk_and_then_space(built: Project, tmp_path):
    with mounted(tmp_path / "disk", "size=24m") as disk:
        shutil.rmtree(built.root / ".uss")
        (disk / "uss").mkdir()
        (built.root / ".uss").symlink_to(disk / "uss")
        before = published(built)
        built.append("params.yaml", "entries:\n  kmeans: {params: {k: 5}}\n")
        filling = fill(disk)
        assert refused(built.uss("repro", "segments/kmeans/scenes", code=75)).startswith("The disk is full")
        assert published(built) == before
        filling.unlink()
        assert built.repro("segments/kmeans/scenes") == ["segments/kmeans/scenes"]
