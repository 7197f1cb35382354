"""The cells of what is curated and trained: pools, curated sets and students, and who learns from whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from uss_dagster import registry
from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.planning.cells import expected_code, feature_cell
from uss_dagster.planning.profiles import Profile, located

MOST_ENTRIES = 3
"""Entries of one pool: a template of DVC names a fixed number of dependencies."""


def curated_cells(
    profile: Profile, name: str, segments: Mapping[str, Any], datasets: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cells of the stages ``pool`` and ``curated``, from one item of the section 'curated'."""
    from uss_dagster.curation.params import CurateParams, PoolParams, pool_defaults

    given, keys = profile.curated[name], ("curated", name)
    settings = ("dataset", "entry", "entries", "labels", "preset", "params", "pool", "title")
    for key in given:
        if key not in settings:
            raise UsageError(f"{profile.at(*keys, key)}: curated '{name}' has no setting '{key}'.{did_you_mean(key, settings)}")
    dataset, entries = str(given.get("dataset")), given.get("entries") or [given.get("entry")]
    if dataset not in datasets:
        raise UsageError(f"{profile.at(*keys, 'dataset')}: Unknown dataset '{dataset}'.{did_you_mean(dataset, datasets)}")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_ENTRIES or len(set(entries)) < len(entries):
        raise UsageError(f"{profile.at(*keys, 'entries')}: curated '{name}' takes 1 to {MOST_ENTRIES} different entries, got {entries!r}.")
    for entry in entries:
        if f"{entry}__{dataset}" not in segments:
            known = [key.partition("__")[0] for key, cell in segments.items() if cell["dataset"] == dataset]
            raise UsageError(f"{profile.at(*keys, 'entries')}: No entry '{entry}' runs on '{dataset}'.{did_you_mean(str(entry), known)}")
    preset = given.get("preset", "train")
    both = {"pool": (PoolParams, pool_defaults(str(preset))), "params": (CurateParams, {"preset": preset})}
    params = {}
    for part, (cls, default) in both.items():
        with located(profile.at(*keys, part)):
            mapping = given.get(part) or {}
            if not isinstance(mapping, Mapping):
                raise UsageError(f"'{part}' of curated '{name}' must be a mapping, got {mapping!r}.")
            params[part] = registry.params_to_dict(registry.build_params(cls, {**default, **mapping}, f"curated '{name}'"))
    cells = {entry: segments[f"{entry}__{dataset}"] for entry in entries}
    for entry, cell in cells.items():
        if params["pool"]["views"] and cell["model"]:
            raise UsageError(
                f"{profile.at(*keys, 'pool', 'views')}: curated '{name}' measures stability, but entry '{entry}' runs a trained model, which "
                "is not run again on other views. Leave out 'views'."
            )
    source = f"data/datasets/{dataset}"
    # DVC takes no empty dependency and none twice: what is not read is filled up with files of the images, which are read anyway.
    filled = [f"data/segments/{entry}/{dataset}" for entry in entries] + [
        f"{source}/images/images.parquet",
        f"{source}/images/shard-00000.tar",
    ]
    families = {entry: _family(profile, cell) for entry, cell in cells.items()} if params["pool"]["views"] else {}
    title = str(given.get("title") or f"Training set {name}")
    pool = {
        "name": name,
        "dataset": dataset,
        "entries": entries,
        "families": families,
        "params": params["pool"],
        "images": f"{source}/images",
        **{f"reads_{number}": path for number, path in enumerate(filled[:MOST_ENTRIES], start=1)},
        "pool": "gpu" if any(cell["pool"] == "gpu" for cell in cells.values()) and families else "",
        "shard_images": profile.settings.shard_images,
        "title": f"{title}: masks of {', '.join(entries)} without duplicates, nested and measured",
    }
    labels = _labels_of(profile, name, datasets[dataset]["truth"])
    curated = {
        "name": name,
        "dataset": dataset,
        "labels": labels,
        "truth": datasets[dataset]["truth"],
        "reads": {"none": f"{source}/images/images.parquet", "truth": f"{source}/truth"}.get(labels, labels),
        "images": f"{source}/images",
        "params": params["params"],
        "title": title,
        "source": f"dataset '{dataset}' ({datasets[dataset]['title']})",
        "methods": ", ".join(str(cell["title"]) for cell in cells.values()),
        "licence": datasets[dataset]["licence"],
        "citation": datasets[dataset]["citation"],
        "homepage": registry.load("dataset", datasets[dataset]["kind"]).SPEC.homepage,
    }
    return {**pool, "code": expected_code("pool", pool)}, {**curated, "code": expected_code("curated", curated)}


def _family(profile: Profile, segments: Mapping[str, Any]) -> dict[str, Any]:
    """What it takes to run the method of an entry again on another picture."""
    backbone = segments["backbone"]
    encoder = {k: v for k, v in feature_cell(profile, backbone, "").items() if k in ("kind", "params")} if backbone else {}
    return {"method": segments["method"], "params": segments["params"], "backbone": backbone, "encoder": encoder}


def _labels_of(profile: Profile, name: str, kind: str) -> str:
    """'none', 'truth', or the path of a COCO file."""
    given = profile.curated[name].get("labels", "none")
    if given in (False, None, "none"):
        return "none"
    if given in (True, "truth"):
        if kind not in ("instances", "classes"):
            at = profile.at("curated", name, "labels")
            raise UsageError(
                f"{at}: ground truth of kind '{kind}' holds no masks of objects. Leave out 'labels', or name a COCO .json file."
            )
        return "truth"
    if not str(given).endswith(".json"):
        raise UsageError(f"{profile.at('curated', name, 'labels')}: labels are none, truth, or a COCO .json file, got {given!r}.")
    return str(given)


# -- students -----------------------------------------------------------------------------------------------


def student_cells(profile: Profile, grid: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells of the stages ``models`` and ``private_models``. grid: with its datasets, segments and curated sets."""
    cells = {name: _student_cell(profile, name, grid["curated"], grid["datasets"]) for name in sorted(profile.students)}
    for name in cells:
        _refuse_circle(profile, (name,), cells, grid)
    return cells


def _student_cell(profile: Profile, name: str, curated: Mapping[str, Any], datasets: Mapping[str, Any]) -> dict[str, Any]:
    from uss_dagster.student.settings import StudentSettings

    given, keys = profile.students[name], ("students", name)
    settings = ("curated", "size", "params", "self_train", "title", "push")
    for key in given:
        if key not in settings:
            raise UsageError(f"{profile.at(*keys, key)}: student '{name}' has no setting '{key}'.{did_you_mean(key, settings)}")
    source = str(given.get("curated"))
    if source not in curated:
        raise UsageError(f"{profile.at(*keys, 'curated')}: Unknown curated set '{source}'.{did_you_mean(source, curated)}")
    teacher = given.get("self_train") or ""
    if teacher and (teacher == name or teacher not in profile.students):
        others = [other for other in profile.students if other != name]
        at = profile.at(*keys, "self_train")
        raise UsageError(f"{at}: student '{name}' learns from '{teacher}', expected another student.{did_you_mean(str(teacher), others)}")
    mapping = given.get("params") or {}
    if not isinstance(mapping, Mapping):
        raise UsageError(f"{profile.at(*keys, 'params')}: 'params' of student '{name}' must be a mapping, got {mapping!r}.")
    with located(profile.at(*keys, *(("params", *list(mapping)[:1]) if mapping else ("size",)))):
        sized = {"size": given.get("size", "tiny"), **mapping}
        params = registry.params_to_dict(registry.build_params(StudentSettings, sized, f"student '{name}'"))
    dataset = curated[source]["dataset"]
    licence, push = datasets[dataset]["licence"], given.get("push")
    if push not in (None, True, False):
        raise UsageError(f"{profile.at(*keys, 'push')}: 'push' of student '{name}' is true or false, got {push!r}.")
    folder = f"data/datasets/{dataset}/images"
    title = str(given.get("title") or f"Student {name}")
    shared = may_be_passed_on(licence) if push is None else push
    cell = {
        "stage": "models" if shared else "private_models",  # in a template of DVC, whether an output is pushed cannot be filled in
        "name": name,
        "curated": source,
        "dataset": dataset,
        "images": folder,
        "self_train": teacher,
        "reads": f"data/models/{teacher}" if teacher else f"{folder}/images.parquet",
        "params": params,
        "pool": "gpu",
        "title": title,
        "source": curated[source]["title"] + (f", with what student '{teacher}' found in their pictures" if teacher else ""),
        "licence": licence,
    }
    return {**cell, "code": expected_code(str(cell["stage"]), cell)}


def may_be_passed_on(licence: str) -> bool:
    """Whether what is learnt from pictures of this licence may go to a shared store without a person saying so."""
    return bool(re.match(r"(MIT|Apache|BSD|CC0|CC BY( |-SA|$)|public domain)", licence)) and not re.search(r"NC|ND|research", licence)


def _refuse_circle(profile: Profile, path: tuple[str, ...], cells: Mapping[str, Any], grid: Mapping[str, Any]) -> None:
    """A student must not learn, by whatever way, from masks that it made itself."""
    cell = cells[path[-1]]
    entries = grid["pool"][cell["curated"]]["entries"]
    used = [grid["segments"][f"{entry}__{cell['dataset']}"]["model"] for entry in entries]
    for name in [*filter(None, (cell["self_train"],)), *(model.rpartition("/")[2] for model in used if model.startswith("data/models/"))]:
        if name in path:
            way = " from ".join(f"'{step}'" for step in (*path, name))
            raise UsageError(f"{profile.at('students', path[0])}: students learn in a circle: {way}. Take one of them out.")
        if name in cells:
            _refuse_circle(profile, (*path, name), cells, grid)


def sees_labels(profile: Profile, student: str, seen: tuple[str, ...] = ()) -> bool:
    """Whether a student of the profile learnt from human masks, its own or those of a student before it."""
    if student not in profile.students or student in seen:
        return False
    given = profile.students[student]
    curated = profile.curated.get(str(given.get("curated")), {})
    entries = [profile.entries.get(str(name), {}) for name in curated.get("entries") or [curated.get("entry")]]
    before = [given.get("self_train"), *((entry.get("params") or {}).get("model") for entry in entries)]
    own = curated.get("labels", "none") not in (None, False, "none")
    return own or any(sees_labels(profile, str(name), (*seen, student)) for name in before if name)


def named_student(profile: Profile, params: Mapping[str, Any]) -> bool:
    return params.get("model") in profile.students
