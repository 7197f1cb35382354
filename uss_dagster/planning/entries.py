"""What the entries of a profile mean: plug-ins with all their parameters, the datasets they run on, trained models they use."""

from __future__ import annotations

import re
from typing import Any

from uss_dagster import registry
from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.planning.cells import Plugin
from uss_dagster.planning.profiles import Profile, complete_params, load_plugin

MODELS = "data/models/"


def encoder_of(profile: Profile, backbone: str) -> Plugin:
    """The plug-in behind a backbone of the profile, or behind a plug-in's own name."""
    section = profile.backbones.get(backbone)
    kind = (section.kind if section else None) or backbone
    module = load_plugin(profile, "backbone", kind, "backbones", backbone)
    values = section.params if section else {}
    params = complete_params(profile, module.SPEC.params, values, f"backbone '{kind}'", "backbones", backbone)
    return Plugin(family="backbone", name=kind, params=params)


def method_of(profile: Profile, entry: str) -> Plugin:
    """The method of an entry; refused where its backbone does not give what it reads."""
    section = profile.entries[entry]
    name = section.method or entry
    spec = load_plugin(profile, "method", name, "entries", entry, "method").SPEC
    backbone = section.backbone
    at = profile.at("entries", entry, "backbone")
    if spec.needs and not backbone:
        raise UsageError(f"{at}: method '{name}' needs {', '.join(spec.needs)} of a backbone. Give entry '{entry}' a line 'backbone: …'.")
    if backbone and not spec.needs:
        raise UsageError(f"{at}: method '{name}' looks at pixels only. Remove 'backbone' from entry '{entry}'.")
    if backbone:
        profile.check_choice("backbone", backbone, {*profile.backbones, *registry.names("backbone")}, "entries", entry, "backbone")
        facets = encoder_of(profile, backbone).params.get("facets", [])
        for facet in spec.needs:
            if facet not in facets:
                raise UsageError(
                    f"{at}: method '{name}' needs facet '{facet}', but backbone '{backbone}' writes {facets}. Add it to the backbone's 'facets'."
                )
        for facet in spec.encodes:
            if facet not in facets:
                raise UsageError(
                    f"{at}: method '{name}' encodes pieces of images as '{facet}'. Add it to the 'facets' of backbone '{backbone}'."
                )
    params = complete_params(profile, spec.params, section.params, f"method '{name}'", "entries", entry, "params")
    return Plugin(family="method", name=name, params=params)


def datasets_of(profile: Profile, entry: str) -> list[str]:
    """The datasets that an entry runs on, sorted."""
    only = profile.entries[entry].datasets
    for name in only or ():
        profile.check_choice("dataset", name, profile.datasets, "entries", entry, "datasets")
    return sorted(only or profile.datasets)


# -- trained models -----------------------------------------------------------------------------------------


def model_of(profile: Profile, entry: str, method: Plugin) -> str:
    """The folder of the trained model that an entry runs, from the project folder; '' for none."""
    name = str(method.params.get("model") or "") if method.spec.model else ""
    at = profile.at("entries", entry, "params", "model")
    if not name:
        if method.spec.model == "needed":
            raise UsageError(
                f"{at}: entry '{entry}' runs a trained student. Name it: 'params: {{model: NAME}}', a student of this profile or its folder."
            )
        return ""
    if name in profile.students:
        return f"{MODELS}{name}"
    if "/" not in name and not name.startswith("."):
        raise UsageError(
            f"{at}: Unknown student '{name}'.{did_you_mean(name, profile.students)} A folder is written with a slash, such as ./{name}."
        )
    return name


def student_of(profile: Profile, model: str) -> str | None:
    """The student of the profile whose folder this is, or None for a folder of a person's own."""
    name = model.removeprefix(MODELS)
    return name if model.startswith(MODELS) and name in profile.students else None


def sees_labels(profile: Profile, student: str | None, seen: tuple[str, ...] = ()) -> bool:
    """Whether a student learnt from human masks, its own or those of a student before it."""
    if student is None or student not in profile.students or student in seen:
        return False
    section = profile.students[student]
    curated = profile.curated.get(str(section.curated))
    if curated is None:
        return False
    entries = [profile.entries[name] for name in curated.all_entries if name in profile.entries]
    before: list[Any] = [section.self_train, *(entry.params.get("model") for entry in entries)]
    return curated.labels not in (False, "none") or any(sees_labels(profile, str(name), (*seen, student)) for name in before if name)


def may_be_passed_on(licence: str) -> bool:
    """Whether what is learnt from pictures of this licence may go to a shared store without a person saying so."""
    return bool(re.match(r"(MIT|Apache|BSD|CC0|CC BY( |-SA|$)|public domain)", licence)) and not re.search(r"NC|ND|research", licence)
