"""The cells of datasets, features, segments and labels, each from one item of a profile, and the fingerprints of all.

Cells of curated sets and students are in ``training_cells``; ``plan`` puts all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uss_dagster import registry
from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.planning.profiles import Profile, checked_params, plugin

STUDENT = "student"


def expected_code(stage: str, cell: Mapping[str, Any]) -> str:
    """The fingerprint that the code on disk gives a cell."""
    modules = [f"uss_dagster.stages.{stage}"]
    for family in ("dataset", "backbone", "method"):
        if stage == {"dataset": "datasets", "backbone": "features", "method": "segments"}[family]:
            modules.append(registry.module_name(family, cell["kind"] if family != "method" else cell["method"]))
    if stage == "segments" and cell.get("encoder"):
        modules.append(registry.module_name("backbone", cell["encoder"]["kind"]))
    if stage == "segments" and cell.get("model"):
        modules.append(registry.module_name("method", STUDENT))
    if stage == "pool":
        for family in cell["families"].values():
            modules.append(registry.module_name("method", family["method"]))
            modules += [registry.module_name("backbone", family["encoder"]["kind"])] if family["encoder"] else []
    if stage == "scores":
        modules += [registry.module_name("metric", m) for m in cell["metrics"]]
    return fingerprint(modules)


def dataset_cell(profile: Profile, name: str) -> dict[str, Any]:
    given = dict(profile.datasets[name])
    kind = str(given.pop("kind", name))
    module = plugin(profile, "dataset", kind, ("datasets", name))
    params = checked_params(profile, module, given, ("datasets", name), f"dataset '{kind}'")
    spec = module.SPEC
    truth = module.truth(registry.build_params(spec.params, params, kind)) if hasattr(module, "truth") else spec.truth
    cell = {
        "kind": kind,
        "params": params,
        "shard_images": profile.settings.shard_images,
        "title": spec.title,
        "truth": truth,
        "licence": spec.licence,
        "citation": spec.citation,
    }
    return {**cell, "code": expected_code("datasets", cell)}


def feature_cell(profile: Profile, backbone: str, dataset: str) -> dict[str, Any]:
    given = dict(profile.backbones.get(backbone, {}))
    kind = str(given.pop("kind", backbone))
    module = plugin(profile, "backbone", kind, ("backbones", backbone))
    params = checked_params(profile, module, given, ("backbones", backbone), f"backbone '{kind}'")
    cell = {
        "backbone": backbone,
        "dataset": dataset,
        "kind": kind,
        "params": params,
        "shard_images": profile.settings.shard_images,
        "pool": "gpu" if module.SPEC.device else "",
        "title": module.SPEC.title,
    }
    return {**cell, "code": expected_code("features", cell)}


def labels_cell(profile: Profile, segments: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """How an entry's regions are given dataset-wide labels: by its own backbone's tokens where they can be compared across images."""
    backbone = segments["backbone"]
    kind = feature_cell(profile, backbone, dataset)["kind"] if backbone else ""
    tokens = bool(backbone) and registry.load("backbone", kind).SPEC.comparable
    cell = {
        "entry": segments["entry"],
        "dataset": dataset,
        "backbone": backbone if tokens else "",
        "descriptor": "tokens" if tokens else "appearance",
        "images": f"data/datasets/{dataset}/images",
        "reads": f"data/features/{backbone}/{dataset}" if tokens else f"data/datasets/{dataset}/images/images.parquet",
        "classes": profile.settings.label_classes,
        "regions_per_image": profile.settings.label_regions,
        "title": f"{segments['title']}: regions grouped into classes over the dataset",
    }
    return {**cell, "code": expected_code("labels", cell)}


def entry_cell(profile: Profile, entry: str) -> tuple[Any, dict[str, Any]]:
    given = profile.entries[entry]
    for key in given:
        if key not in ("method", "backbone", "params", "datasets", "title"):
            settings = ("method", "backbone", "params", "datasets", "title")
            raise UsageError(f"{profile.at('entries', entry, key)}: entry '{entry}' has no setting '{key}'.{did_you_mean(key, settings)}")
    method = str(given.get("method", entry))
    module = plugin(profile, "method", method, ("entries", entry, "method"))
    spec = module.SPEC
    backbone = given.get("backbone")
    at = profile.at("entries", entry, "backbone")
    if spec.needs and not backbone:
        raise UsageError(f"{at}: method '{method}' needs {', '.join(spec.needs)} of a backbone. Give entry '{entry}' a line 'backbone: …'.")
    if backbone and not spec.needs:
        raise UsageError(f"{at}: method '{method}' looks at pixels only. Remove 'backbone' from entry '{entry}'.")
    if backbone:
        known = {*profile.backbones, *registry.names("backbone")}
        if backbone not in known:
            raise UsageError(f"{at}: Unknown backbone '{backbone}'.{did_you_mean(str(backbone), known)}")
        facets = feature_cell(profile, backbone, "")["params"].get("facets", [])
        for facet in spec.needs:
            if facet not in facets:
                raise UsageError(
                    f"{at}: method '{method}' needs facet '{facet}', but backbone '{backbone}' writes {facets}. Add it to the backbone's 'facets'."
                )
    params = checked_params(
        profile, module, _plain(given.get("params") or {}, profile, entry), ("entries", entry, "params"), f"method '{method}'"
    )
    encoder = feature_cell(profile, str(backbone), "") if spec.encodes else {}
    for facet in spec.encodes:
        if facet not in encoder["params"].get("facets", []):
            raise UsageError(
                f"{at}: method '{method}' encodes pieces of images as '{facet}'. Add it to the 'facets' of backbone '{backbone}'."
            )
    model = model_of(profile, entry, spec, params)
    on_gpu = encoder.get("pool") == "gpu" or bool(model and str(params.get("device", "cpu")) != "cpu")
    cell = {
        "entry": entry,
        "method": method,
        "backbone": backbone or "",
        "params": params,
        "model": model,
        "encoder": {k: encoder[k] for k in ("kind", "params") if encoder},
        "pool": "gpu" if on_gpu else "",
        "shard_images": profile.settings.shard_images,
        "title": str(given.get("title") or spec.title),
        "about": f"{given.get('title') or spec.title}: {spec.summary or spec.paper}",
    }
    return spec, {**cell, "code": expected_code("segments", cell)}


def entry_datasets(profile: Profile, entry: str) -> list[str]:
    only = profile.entries[entry].get("datasets")
    if only is None:
        return sorted(profile.datasets)
    at = profile.at("entries", entry, "datasets")
    if not isinstance(only, list) or not only:
        raise UsageError(f"{at}: 'datasets' of entry '{entry}' must be a list of names, got {only!r}.")
    for name in only:
        if name not in profile.datasets:
            raise UsageError(f"{at}: Unknown dataset '{name}'.{did_you_mean(str(name), profile.datasets)}")
    return sorted(only)


def model_of(profile: Profile, entry: str, spec: Any, params: Mapping[str, Any]) -> str:
    """The folder of the trained model that an entry runs, from the project folder; empty for none."""
    given = str(params.get("model") or "") if spec.model else ""
    at = profile.at("entries", entry, "params", "model")
    if not given:
        if spec.model == "needed":
            raise UsageError(
                f"{at}: entry '{entry}' runs a trained student. Name it: 'params: {{model: NAME}}', a student of this profile or its folder."
            )
        return ""
    if given in profile.students:
        return f"data/models/{given}"
    if "/" not in given and not given.startswith("."):
        raise UsageError(
            f"{at}: Unknown student '{given}'.{did_you_mean(given, profile.students)} A folder is written with a slash, such as ./{given}."
        )
    return given


def _plain(value: Any, profile: Profile, entry: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{profile.at('entries', entry, 'params')}: 'params' of entry '{entry}' must be a mapping, got {value!r}.")
    return value
