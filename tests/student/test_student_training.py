"""Training: what is published, going on after a stop, stopping early, several processes, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from student_cases import example, settings, source
from students import FEW, write_curated

from uss_dagster.artifacts.training_runs import read_run
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.registry import build_params
from uss_dagster.student import self_training
from uss_dagster.student.card import ModelCard
from uss_dagster.student.curves import curves
from uss_dagster.student.data import Source
from uss_dagster.student.model import CONFIG, FORMAT, WEIGHTS, Student, build, read_config
from uss_dagster.student.prediction import ScoredMasks
from uss_dagster.student.prompts import Prompts
from uss_dagster.student.self_training import self_train_labels, stored_labels
from uss_dagster.student.settings import ARCHITECTURES, StudentSettings
from uss_dagster.student.training import CARD, CHECKPOINT, LOSSES, PICTURE, train, validation_indices
from uss_dagster.student.tuning import rate_at

MODEL_CARD = ModelCard("A student of discs", "discs", "1234abcd", "mit", "uss train student --out x")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps with validation."""
    out = tmp_path_factory.mktemp("student")
    result = train(source(), source(2), settings(), out, card=MODEL_CARD)
    assert result.finished
    assert [step for step, _ in result.losses] == [1, 2, 3, 4, 5, 6]
    return out


def test_the_folder_says_all_that_is_needed(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {WEIGHTS, CONFIG, LOSSES, PICTURE, CARD}
    config = json.loads((run / CONFIG).read_text())
    assert StudentSettings(**config["settings"]) == settings()
    student = Student.load(run)
    assert config["sha256"] == student.digest
    assert config["data"] == {"told": "discs", "version": "1234abcd"}
    text = (run / CARD).read_text()
    for word in ("A student of discs", "1234abcd", "license: mit", "uss train student --out x", student.digest, "6 images"):
        assert word in text, word
    rows = (run / LOSSES).read_text().splitlines()
    assert len(rows) == 7
    assert rows[0].startswith("step,loss,mask,dice")
    assert rows[2].split(",")[-2] != ""  # validation after step 2
    assert rows[1].split(",")[-2] == ""
    assert (run / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_stopped_run_goes_on_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    advance = lambda step, loss: steps.append(step)  # noqa: E731
    for stop in (lambda: steps[-1] == 1, lambda: steps[-1] == 3):
        assert not train(source(), source(2), settings(), tmp_path, card=MODEL_CARD, stop=stop, advance=advance).finished
        assert (tmp_path / CHECKPOINT).exists()
        assert not (tmp_path / WEIGHTS).exists()
    assert train(source(), source(2), settings(), tmp_path, card=MODEL_CARD, advance=advance).finished
    assert steps == [1, 2, 3, 4, 5, 6]
    for name in (WEIGHTS, CONFIG, LOSSES, PICTURE, CARD):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name
    assert not (tmp_path / CHECKPOINT).parent.exists()


def test_two_threads_learn_what_one_does(run: Path, tmp_path: Path) -> None:
    """Which learns from the halves of each batch one after the other; and from a batch that cannot be halved as it is."""
    train(source(), source(2), settings(), tmp_path / "two", card=MODEL_CARD, threads=2)
    assert (tmp_path / "two" / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
    odd = [train(source(), None, settings(batch=3, steps=2), tmp_path / name, threads=n).folder for name, n in (("a", 1), ("b", 2))]
    assert len({(folder / WEIGHTS).read_bytes() for folder in odd}) == 1


def test_halves_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uss_dagster.student import training

    gradients = []
    for parts in (1, 2):
        monkeypatch.setattr(training, "HALVES", parts)
        trainer = training.Trainer(source(), None, settings(batch=4), tmp_path, torch.device("cpu"), MODEL_CARD)
        batch = trainer.views.batch(0)
        with ThreadPoolExecutor(2) as crew:
            trainer.step(batch, crew)
        gradients.append({name: p.grad.clone() for name, p in trainer.net.named_parameters()})
    for name, whole in gradients[0].items():
        assert torch.allclose(whole, gradients[1][name], atol=1e-5 + 1e-3 * float(whole.abs().max())), name


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(source(), None, settings(), tmp_path, card=MODEL_CARD, stop=lambda: True)
    with pytest.raises(UsageError, match=r"other settings \(rate 0.002 → 0.001\)"):
        train(source(), None, settings(rate=1e-3), tmp_path, card=MODEL_CARD)
    with pytest.raises(UsageError, match="other images or another version"):
        train(source(5), None, settings(), tmp_path, card=MODEL_CARD)
    (tmp_path / CHECKPOINT).write_bytes(b"\x80\x04pickled")
    with pytest.raises(BadData, match="is not a checkpoint of this program"):
        train(source(), None, settings(), tmp_path, card=MODEL_CARD)


def test_the_best_weights_are_kept_and_training_stops_when_validation_says_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uss_dagster.student import training

    scores = iter([0.3, 0.6, 0.5, 0.4, 0.9])
    monkeypatch.setattr(training, "mean_of", lambda values: next(scores))
    result = train(source(), source(2), settings(steps=20, every=2, patience=2), tmp_path / "few")
    assert result.finished
    assert result.step == 8
    assert json.loads((tmp_path / "few" / CONFIG).read_text())["step"] == 4
    scores = iter([0.3, 0.6])
    train(source(), source(2), settings(steps=20, every=2), tmp_path / "begun", stop=iter([False, False, False, True]).__next__)
    scores = iter([0.5, 0.4, 0.2])
    resumed = train(source(), source(2), settings(steps=20, every=2, patience=0), tmp_path / "begun", stop=iter([False, True]).__next__)
    assert not resumed.finished


def test_a_student_begins_with_another(run: Path, tmp_path: Path) -> None:
    result = train(source(), None, settings(steps=1, rate=1e-9), tmp_path, start=run)
    assert result.finished
    before, after = Student.load(run).net.state_dict(), Student.load(tmp_path).net.state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_a_picture_without_masks_is_learnt_from_and_an_empty_source_refused(tmp_path: Path) -> None:
    blank = Source(["a", "b"], lambda i: np.full((20, 30, 3), 80, np.uint8), lambda i: ([], np.zeros(0, bool)))
    assert train(blank, None, settings(steps=2), tmp_path).finished
    with pytest.raises(BadData, match="nothing to train on"):
        train(Source([], blank.pixels, blank.masks), None, settings(), tmp_path / "none")


@pytest.mark.parametrize("damage", ["flipped", "short", "other", "pickle", "missing", "config"])
def test_what_is_no_student_is_refused_in_one_sentence(run: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    weights, config = (run / WEIGHTS).read_bytes(), json.loads((run / CONFIG).read_text())
    if damage == "flipped":
        weights = weights[:-7] + bytes([weights[-7] ^ 1]) + weights[-6:]
    elif damage == "short":
        weights = weights[: len(weights) // 2]
    elif damage == "other":
        from hashlib import sha256

        from safetensors.torch import save

        weights = save({"layer.weight": torch.zeros(3)})
        config["sha256"] = sha256(weights).hexdigest()
    elif damage == "config":
        config["format"] = "something else"
    if damage == "pickle":
        torch.save({"net": torch.zeros(2)}, folder / "model.pt")
    else:
        (folder / CONFIG).write_text(json.dumps(config))
        if damage != "missing":
            (folder / WEIGHTS).write_bytes(weights)
    told = {
        "flipped": "is not the file that its config.json was written for",
        "short": "is not the file that its config.json was written for",
        "other": "is not of this network",
        "pickle": "model.pt, a pickle, which is never loaded",
        "missing": "is missing",
        "config": "is not the config of a student",
    }
    with pytest.raises(BadData, match=told[damage]) as refused:
        Student.load(folder)
    assert "\n" not in str(refused.value)


def test_a_file_with_the_right_digest_that_is_no_safetensors_is_refused(run: Path, tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    data = pickle.dumps(Harmful())
    config = json.loads((run / CONFIG).read_text()) | {"sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(BadData, match="not a readable safetensors file"):
        Student.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_rate_is_one_cycle() -> None:
    rates = [rate_at(step, 100) for step in range(100)]
    assert int(np.argmax(rates)) == 10
    assert rates[10] == 1
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[0] == pytest.approx(0.04)
    assert rates[-1] < 0.02
    assert [rate_at(step, 1) for step in range(1)] == [pytest.approx(0.04)]


def test_validation_images_are_spread() -> None:
    assert validation_indices(0) == []
    assert validation_indices(3) == [0, 1, 2]
    many = validation_indices(1000)
    assert len(many) == 24
    assert set(np.diff(many)) <= {41, 42}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"size": "huge"}, "expected one of tiny, photo, S"),
        ({"input": 100}, "multiple of 16"),
        ({"steps": -1}, "steps is -1"),
        ({"average": 1.0}, "below 1"),
        ({"patience": -2}, "patience is -2"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        StudentSettings(**values)
    with pytest.raises(UsageError, match="Did you mean 'clicks'"):
        build_params(StudentSettings, {"click": 3}, "student")


def test_settings_of_a_size_stand_where_none_are_given() -> None:
    large = StudentSettings("S", batch=4)
    assert (large.batch, large.points, large.input, large.architecture.queries) == (4, 4096, 512, 300)
    assert large.every == large.steps // 10


def test_queries_layers_and_grains_are_settings_of_the_network(tmp_path: Path) -> None:
    """Of the size where none are given, also in a config file of before there were such settings."""
    for size, expected in (("tiny", (24, 2, 3)), ("S", (300, 6, 6))):
        own = StudentSettings(size)
        assert (own.architecture.queries, own.architecture.layers, own.architecture.grains) == expected
        assert own.architecture == ARCHITECTURES[size]
    settings = StudentSettings(queries=50, layers=3, grains=4)
    with torch.inference_mode():
        outputs = build(settings).eval()(torch.zeros(1, 3, 64, 64), Prompts.clicks(torch.tensor([[[0.5, 0.5], [0.2, 0.7]]])))[0]
    assert len(outputs) == 1 + 3
    assert outputs[-1].masks.shape == (1, 50 + 2 * 4, 32, 32)
    assert not settings.same_network(StudentSettings())
    assert settings.same_network(StudentSettings(queries=50, layers=3, grains=4, steps=9))
    with pytest.raises(UsageError, match="queries is -1"):
        StudentSettings(queries=-1)

    plain = {name: value for name, value in StudentSettings().to_dict().items() if name not in ("queries", "layers", "grains")}
    config = {"format": FORMAT, "settings": plain, "sha256": "", "step": 1, "images": 1, "scores": {}, "data": {"told": "", "version": ""}}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert read_config(tmp_path)[1] == StudentSettings()


def test_labels_of_a_teacher_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []

    class Teacher:
        def masks(self, image: np.ndarray, auto: str, min_score: float) -> ScoredMasks:
            looked.append(image.tobytes())
            return ScoredMasks((40, 48), list(example(0).codes), np.ones(len(example(0).codes)), ["query"] * len(example(0).codes))

    monkeypatch.setattr(self_training, "CHUNK", 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with ThreadPoolExecutor(1) as other:  # a process that waits for what the first has to do
        monkeypatch.setenv("LOCAL_RANK", "1")
        second = other.submit(stored_labels, Teacher(), source(), tmp_path / "labels")
        while not looked:
            time.sleep(0.01)
        monkeypatch.setenv("LOCAL_RANK", "0")
        first = stored_labels(Teacher(), source(), tmp_path / "labels")
    assert len(looked) == len(set(looked)) == 6, "each picture by one process"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    again = stored_labels(Teacher(), source(), tmp_path / "labels")
    assert len(looked) == 6, "and not again"
    expected = self_train_labels(Teacher(), source())
    for labels in (first, second.result(), again):
        assert [labels[i].codes for i in range(6)] == [expected[i].codes for i in range(6)]


def launched(tmp_path: Path, lines: list[str], *launcher: str) -> subprocess.Popen[str]:
    """A program that imports what trains, in a process of its own."""
    imports = [
        "import sys",
        "from pathlib import Path",
        "from student_cases import settings, source",
        "from uss_dagster.student.rounds import Round, train_round",
        "from uss_dagster.student.card import ModelCard",
        "from uss_dagster.student.training import Trainer, train",
    ]
    (tmp_path / "program.py").write_text("\n".join([*imports, *lines]) + "\n")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    words = [sys.executable, *launcher, str(tmp_path / "program.py"), str(tmp_path / "out")]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on(tmp_path: Path, number: int) -> None:
    job = "Round('test', Path(sys.argv[1]), settings(steps=100000, every=50000), ModelCard())"
    run = launched(tmp_path, [f"train_round(source(), source(0), {job})"])
    assert run.stdout is not None
    while '"done"' not in run.stdout.readline():
        assert run.poll() is None
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    stopped = re.search(r"test: stopped after step (\d+); the same command goes on from there", said)
    assert stopped
    assert read_run(tmp_path / "out" / CHECKPOINT)[1]["step"] == int(stopped[1]) > 0


@pytest.mark.slow
def test_a_number_that_is_none_in_one_process_ends_all_with_one_sentence(tmp_path: Path) -> None:
    """``uss train student`` in two processes; the images of one become NaN at the fourth step."""
    curated = write_curated(tmp_path / "project")
    words = ["train", "student", "--masks", str(curated), "--out", str(tmp_path / "out"), "--steps", "50", "--device", "cpu"]
    words += [word for name in ("clicks", "input", "test_input") for word in ("--param", f"{name}={FEW[name]}")]
    lines = [
        "from uss_dagster.cli import main",
        "batch = Trainer._batch",
        "def spoiled(self, step):",
        "    windows, features = batch(self, step)",
        "    windows.images[0] = float('nan') if self.rank == 1 and step == 3 else windows.images[0]",
        "    return windows, features",
        "Trainer._batch = spoiled",
        f"sys.argv = ['uss', *{words!r}, '--param', 'batch=4']",
        "main()",
    ]
    run = launched(tmp_path, lines, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    said, _ = run.communicate(timeout=300)
    assert run.returncode != 0
    sentences = re.findall(r"The loss is no longer a number after \d+ steps[^\n]*", said)
    assert sentences == ["The loss is no longer a number after 4 steps. Start again with a lower rate than 0.002."] * 2, said
    assert said.count("Traceback (most recent call last)") == 1, "only that of the launcher"


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"encoder": "vit_tiny_patch16_224", "weights": "random", "tune": "frozen", "views": 2}])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, values: dict) -> None:
    """From its last checkpoint, here one of those that come after a time."""
    values = {"steps": 60, "every": 60, "minutes": 1e-6, **values}
    whole = train(source(), source(1), settings(**values), tmp_path / "whole")
    lines = [
        "import time",
        f"values = settings(**{values!r})",
        "wait = lambda: time.sleep(0.05) or False",
        "train_round(source(), source(1), Round('test', Path(sys.argv[1]), values, ModelCard()), wait)",
    ]
    run = launched(tmp_path, lines)
    while not (tmp_path / "out" / CHECKPOINT).exists() or read_run(tmp_path / "out" / CHECKPOINT)[1]["step"] < 5:
        assert run.poll() is None
        time.sleep(0.05)
    run.kill()
    run.communicate()
    assert read_run(tmp_path / "out" / CHECKPOINT)[1]["step"] < 60
    assert train(source(), source(1), settings(**values), tmp_path / "out").finished
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    assert (tmp_path / "out" / LOSSES).read_bytes() == (whole.folder / LOSSES).read_bytes()


def test_the_published_weights_are_the_running_mean(tmp_path: Path) -> None:
    from uss_dagster.student import training

    trainer = training.Trainer(source(), None, settings(average=0.15), tmp_path, torch.device("cpu"), MODEL_CARD)
    expected = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    with ThreadPoolExecutor(2) as crew:
        for decay in (0.1, 0.15):  # (step + 1) / (step + 10), at most that of the settings
            trainer.step(trainer.views.batch(trainer.done), crew)
            for name, value in trainer.net.state_dict().items():
                expected[name] = decay * expected[name] + (1 - decay) * value
    assert all(torch.allclose(trainer.average[name], value, atol=1e-6) for name, value in expected.items())


def test_bfloat16_learns_nearly_the_same(tmp_path: Path) -> None:
    losses = {
        precision: train(source(), None, settings(steps=2, precision=precision), tmp_path / precision).losses
        for precision in ("auto", "float32", "bfloat16")
    }
    assert losses["auto"] == losses["float32"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"][0][1] == pytest.approx(losses["float32"][0][1], rel=0.02)
    with pytest.raises(UsageError, match="precision is 'half'"):
        settings(precision="half")


def test_curves_for_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the layout of DVCLive, also of a run that goes on; a missing package is named."""
    with curves("dvclive", tmp_path) as record:
        train(source(), source(2), settings(), tmp_path, stop=iter([False, False, True]).__next__, record=record)
    with curves("dvclive", tmp_path) as record:
        train(source(), source(2), settings(), tmp_path, record=record)
    rows = [row.split(",") for row in (tmp_path / LOSSES).read_text().splitlines()]
    for name in ("loss", "rate", "val_ar1000"):
        table = [row.split("\t") for row in (tmp_path / "dvclive/plots/metrics" / f"{name}.tsv").read_text().splitlines()]
        column = rows[0].index(name)
        expected = [(row[0], float(row[column])) for row in rows[1:] if row[column]]
        assert table[0] == ["step", name]
        assert [(step, pytest.approx(float(value), rel=1e-5)) for step, value in table[1:]] == expected
    latest = json.loads((tmp_path / "dvclive/metrics.json").read_text())
    assert latest["step"] == 6
    assert latest["loss"] == pytest.approx(float(rows[-1][1]), rel=1e-5)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="need the package 'tensorboard'"), curves("tensorboard", tmp_path):
        pass
    with pytest.raises(UsageError, match="expected dvclive or tensorboard"), curves("wandb", tmp_path):
        pass


@pytest.mark.slow
def test_curves_as_events_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stop in (iter([False, False, True]).__next__, lambda: False):
        with curves("tensorboard", tmp_path) as record:
            train(source(), None, settings(), tmp_path, stop=stop, record=record)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    table = np.genfromtxt(tmp_path / LOSSES, delimiter=",", names=True)
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == table["step"].tolist()
    assert [event.value for event in losses] == pytest.approx(table["loss"].tolist(), rel=1e-5)


@pytest.mark.slow
def test_two_processes_train_one_student(tmp_path: Path) -> None:
    """``torchrun`` with gloo: the first step's loss and all later ones are those of one process, but for the order of sums."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom student_cases import settings, source\nfrom uss_dagster.student.training import train\n"
        "train(source(), source(2), settings(batch=4), Path(sys.argv[1]))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program), str(tmp_path / "two")]
    subprocess.run(launch, env=environment, check=True, capture_output=True, timeout=300)
    subprocess.run([sys.executable, str(program), str(tmp_path / "one")], env=environment, check=True, capture_output=True, timeout=300)
    tables = [np.genfromtxt(tmp_path / name / LOSSES, delimiter=",", names=True) for name in ("one", "two")]
    assert tables[0]["loss"][0] == pytest.approx(tables[1]["loss"][0], rel=0.3)  # the first process sees half of the batch
    one, two = (Student.load(tmp_path / name).net.state_dict() for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=2e-3) for name in one)
