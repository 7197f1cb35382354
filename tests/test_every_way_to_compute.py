"""After any edit, every way to compute gives the same locks, or the same refusal."""

from __future__ import annotations

import copy
import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from projects import SMALL, Project, copy_project, executed, of_results
from safetensors.numpy import save

EDITS = 12
DAGSTER_EVERY = 6
"""Dagster takes longest, so it computes the sum of several edits at once."""
MATERIALISE = ("asset", "materialize", "-m", "uss_dagster.definitions", "--partition", "scenes", "--select", "*")
METHODS = ("kmeans", "felzenszwalb", "slic_merge")
ANOTHER_RESULT = """

_before_{number} = segment


def segment(sample, params, state=None):
    import dataclasses

    return _before_{number}(sample, dataclasses.replace(params, feature_weight={weight}), state)
"""

PROFILE = "profiles/small.yaml"
WEIGHTS = "weights/small.safetensors"
BACKBONE = f'''"""The filters of ``patches``, each times a number from a file of weights."""

from dataclasses import dataclass, replace

from uss_dagster.backbones import patches
from uss_dagster.weights.store import identity, loaded_identity


@dataclass(frozen=True)
class Params(patches.Params):
    """As of ``patches``, and the file."""

    dictionary: bool = False
    checkpoint: str = "{WEIGHTS}"


SPEC = replace(patches.SPEC, name="weighted", params=Params)


def weights_identity(params, identity_of=identity):
    return loaded_identity(params.checkpoint, None, identity_of)


def load(params, device="auto"):
    from safetensors.numpy import load_file

    factor, extract = load_file(params.checkpoint)["factor"], patches.load(params, device)
    return lambda images: [facets | {{"tokens": facets["tokens"] * factor}} for facets in extract(images)]
'''
ENTRY = "  kmeans_weighted: {method: kmeans, backbone: weighted, params: {k: 4}}\n"
CHANNELS = 18
"""Of ``patches`` without its dictionary."""

Files = dict[str, bytes]
"""Path in the project → content, of the files that people edit or replace."""


@dataclass
class Edits:
    """Random edits of a project's files, each one of a kind that people make; ``files`` is what they hold now."""

    files: Files
    random: random.Random
    number: int = 0
    earlier: list[Files] = field(default_factory=list)

    def next(self, kind: str) -> None:
        self.number += 1
        self.earlier.append(copy.copy(self.files))
        kinds: dict[str, Callable[[], None]] = {
            "a parameter": self._parameter,
            "a profile": self._profile,
            "a dataset": self._dataset,
            "a statement": lambda: self._append(self.random.choice(METHODS), f"\n_UNUSED_{self.number} = {self.number}\n"),
            "another result": lambda: self._append(
                "slic_merge", ANOTHER_RESULT.format(number=self.number, weight=round(self.random.uniform(0.1, 0.9), 2))
            ),
            "a comment": lambda: self._append(self.random.choice(METHODS), f"\n# remark {self.number}\n"),
            "weights": self._weights,
            "back to an earlier state": lambda: self.files.update(self.random.choice(self.earlier)),
            "a mistake": lambda: self._change("params.yaml", "entries", "kmeans", {"params": {"k": self.random.choice([-3, "many"])}}),
            "the mistake undone": lambda: self.files.update(self.earlier[-2]),
        }
        kinds[kind]()

    def _parameter(self) -> None:
        name, parameter, values = self.random.choice([("kmeans", "k", (3, 6)), ("slic_merge", "superpixels", (30, 80))])
        self._change("params.yaml", "entries", name, {"params": {parameter: self.random.randint(*values)}})

    def _profile(self) -> None:
        entry = {"method": "felzenszwalb", "params": {"scales": self.random.randint(2, 5)}}
        self._change(PROFILE, "entries", self.random.choice(["felzenszwalb", "more"]), entry)

    def _dataset(self) -> None:
        self._change(PROFILE, "datasets", "scenes", {"images": self.random.randint(2, 5), "seed": self.random.randint(0, 9)})

    def _weights(self) -> None:
        """Another number in place of one of them."""
        file, place = bytearray(self.files[WEIGHTS]), 4 * self.random.randrange(CHANNELS)
        end = len(file) - place
        file[end - 4 : end] = struct.pack("<f", self.random.uniform(0.1, 9))
        self.files[WEIGHTS] = bytes(file)

    def _append(self, method: str, text: str) -> None:
        self.files[f"uss_dagster/methods/{method}.py"] += text.encode()

    def _change(self, path: str, section: str, name: str, value: dict) -> None:
        content = yaml.safe_load(self.files[path])
        content.setdefault(section, {})[name] = value
        self.files[path] = yaml.safe_dump(content, sort_keys=False).encode()


def sequence(generator: random.Random) -> list[str]:
    """Kinds of edit, each at least once; a mistake is undone by the edit after it."""
    plain = ["a parameter", "a profile", "a dataset", "a statement", "another result", "a comment", "weights", "back to an earlier state"]
    kinds = plain + generator.choices(plain, k=EDITS - 2 - len(plain))
    generator.shuffle(kinds)
    place = generator.randrange(len(kinds))
    return [*kinds[:place], "a mistake", "the mistake undone", *kinds[place:]]


def write(project: Project, files: Files) -> None:
    for path, content in files.items():
        if (project.root / path).read_bytes() != content:
            (project.root / path).write_bytes(content)


def with_weights(project: Project) -> Project:
    """The project with a backbone that loads weights, and an entry that uses it."""
    (project.root / "uss_dagster/backbones/weighted.py").write_text(BACKBONE, encoding="utf-8")
    (project.root / PROFILE).write_text(SMALL.replace("metrics:", "  weighted: {}\nmetrics:") + ENTRY, encoding="utf-8")
    (project.root / WEIGHTS).parent.mkdir()
    (project.root / WEIGHTS).write_bytes(save({"factor": np.ones(CHANNELS, np.float32)}))
    return project


def sentence(output: str) -> str:
    """The refusal in an output, without what a program puts before it."""
    return re.findall(r"(?:error: |UsageError: )(.+)", output)[-1].strip()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_every_way_gives_the_same_locks_or_the_same_refusal(finished: Project, tmp_path: Path, seed: int):
    by_uss, by_dvc, by_dagster = (with_weights(copy_project(finished, tmp_path / name)) for name in ("uss", "dvc", "dagster"))
    generator = random.Random(seed)
    names = ["params.yaml", PROFILE, WEIGHTS, *(f"uss_dagster/methods/{method}.py" for method in METHODS)]
    edits = Edits({name: (by_uss.root / name).read_bytes() for name in names}, generator)
    for project in (by_uss, by_dvc, by_dagster):
        project.uss("plan")
    by_uss.uss("repro")
    by_dvc.dvc("repro", "--all-pipelines")
    for number, kind in enumerate(sequence(generator), start=1):
        edits.next(kind)
        for project in (by_uss, by_dvc, by_dagster):
            write(project, edits.files)
        what, before = f"seed {seed}, edit {number}: {kind}", by_dvc.locks()

        # A plain `dvc repro` computes nothing: it refuses, or nothing that counts has changed. Of weights, the stage that loads them refuses.
        plain = by_dvc.dvc("repro", "--all-pipelines", code=None)
        weights_alone = {name for name in names if edits.files[name] != edits.earlier[-1][name]} == {WEIGHTS}
        assert executed(plain.stdout) == (["features/weighted/scenes"] if weights_alone else []), what
        assert of_results(by_dvc.locks()) == of_results(before), what
        planned, repro = by_dvc.uss("plan", code=None), by_uss.uss("repro", code=None)
        if repro.returncode:
            assert kind == "a mistake", f"{what}\n{repro.stdout}{repro.stderr}"
            assert (planned.returncode, repro.returncode, plain.returncode) == (64, 64, 255), what
            said = sentence(repro.stderr)
            assert [sentence(planned.stderr), sentence(plain.stderr)] == [said, said], what
            assert by_dvc.locks() == before, what
            assert by_uss.locked() == by_dvc.locked(), what
            refused = by_dagster.dagster(*MATERIALISE, code=None)
            assert refused.returncode != 0, what
            assert said in refused.stdout + refused.stderr, what
            continue
        assert (plain.returncode == 0) == ("up to date" in planned.stdout), f"{what}\n{plain.stderr}{planned.stdout}"
        assert not weights_alone or planned.stdout.count(": weights\n") == 1, f"{what}\n{planned.stdout}"
        refusal = (
            "are not those that pipelines/scenes/features-weighted.yaml was planned with"
            if weights_alone
            else "error: The plan is out of date"
        )
        assert plain.returncode == 0 or refusal in plain.stderr, f"{what}\n{plain.stderr}"
        by_dvc.dvc("repro", "--all-pipelines")
        assert by_dvc.locked() == by_uss.locked(), f"{what} (a plain `dvc repro` appends new stages, so their order may differ)"
        if number % DAGSTER_EVERY == 0 or number == EDITS:
            by_dagster.uss("plan")  # new entries must be planned before Dagster can be asked for them
            by_dagster.dagster(*MATERIALISE)
            assert by_dagster.locks() == by_uss.locks(), what
    for project in (by_uss, by_dvc, by_dagster):
        assert project.uss("verify").stdout.endswith("are what dvc.lock records.\n")
