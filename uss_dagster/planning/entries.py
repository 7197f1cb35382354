"""What the entries of a profile mean: plug-ins with all their parameters, the datasets they run on, trained models they use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from uss_dagster import registry
from uss_dagster.errors import ParameterError, UsageError, did_you_mean
from uss_dagster.planning.cells import Plugin
from uss_dagster.planning.profiles import EntrySection, Params, Profile, complete_params, load_plugin
from uss_dagster.weights.catalogue import CATALOGUE

MODELS = "data/models/"


def encoder_of(profile: Profile, backbone: str) -> Plugin:
    """The plug-in behind a backbone of the profile, or behind a plug-in's own name, with all facets that entries read of it."""
    module, values = _backbone(profile, backbone)
    facets: dict[str, None] = {}
    for entry, section in profile.entries.items():
        if section.backbone == backbone:
            facets |= dict.fromkeys(facets_read(profile, entry))
        if section.encoder == backbone:
            facets |= dict.fromkeys(facets_encoded(profile, entry))
    kind = module.SPEC.name
    params = complete_params(profile, module.SPEC.params, values, f"backbone '{kind}'", "backbones", backbone)
    if "facets" in params:
        params["facets"] = list(dict.fromkeys((*params["facets"], *facets)))
    return Plugin(family="backbone", name=kind, params=params)


def _backbone(profile: Profile, backbone: str) -> tuple[Any, Params]:
    """The module of a backbone of the profile, and the values that the profile gives it."""
    section = profile.backbones.get(backbone)
    kind = (section.kind if section else None) or backbone
    return load_plugin(profile, "backbone", kind, "backbones", backbone), section.params if section else {}


def keeps_features(profile: Profile, backbone: str) -> bool:
    """Whether the features of a backbone are computed once and stored."""
    return backbone not in profile.backbones or profile.backbones[backbone].keep


def store_of(profile: Profile, backbone: str) -> str:
    """The type of number in which the features of a backbone are stored."""
    return profile.backbones[backbone].store if backbone in profile.backbones else "float16"


def method_of(profile: Profile, entry: str) -> Plugin:
    """The method of an entry, with all its parameters."""
    section = profile.entries[entry]
    name = section.kind or section.method or entry
    spec = load_plugin(profile, "method", name, "entries", entry, "kind" if section.kind else "method").SPEC
    params = complete_params(profile, spec.params, section.params, f"method '{name}'", *_params_at(profile, entry))
    return Plugin(family="method", name=name, params=params)


def method_on(profile: Profile, entry: str, method: Plugin, dataset: str, root: Path) -> Plugin:
    """The method of an entry as it runs on a dataset: a method that reads files of a person may differ from one to the next."""
    if not hasattr(method.module, "for_dataset"):
        return method
    try:
        params = method.module.for_dataset(method.build(), dataset, root)
    except ParameterError as error:
        raise ParameterError(f"{profile.at(*_params_at(profile, entry), *error.path)}: entry '{entry}': {error}", error.path) from None
    return method.model_copy(update={"params": registry.params_to_dict(params)})


def _params_at(profile: Profile, entry: str) -> tuple[str, ...]:
    """The keys below which the parameters of an entry are."""
    return ("entries", entry) if profile.entries[entry].kind else ("entries", entry, "params")


def runs_of(profile: Profile, entry: str) -> dict[str, Plugin]:
    """The runs of an entry by name, each with its seed: one of the entry's own name, and one more for each further seed."""
    method, seeds = method_of(profile, entry), profile.entries[entry].seeds
    at = profile.at("entries", entry, "seeds")
    if seeds == 1:
        return {entry: method}
    if "seed" not in method.params:
        raise UsageError(f"{at}: method '{method.name}' draws nothing at random, so it has no seeds. Remove 'seeds' from entry '{entry}'.")
    first = method.params["seed"]
    runs = {entry: method}
    for seed in range(first + 1, first + seeds):
        name = f"{entry}_seed_{seed}"
        if name in profile.entries:
            raise UsageError(f"{at}: entry '{entry}' has a run '{name}', which is another entry's name. Rename that entry.")
        runs[name] = method.model_copy(update={"params": {**method.params, "seed": seed}})
    return runs


def facets_read(profile: Profile, entry: str) -> tuple[str, ...]:
    """The facets that the method of an entry reads of its backbone; refused where the backbone cannot give them."""
    backbone, method = profile.entries[entry].backbone, method_of(profile, entry)
    spec, at = method.spec, profile.at("entries", entry, "backbone")
    facets: tuple[str, ...] = spec.facets_read(method.build(), profile.entries[entry].encoder is not None)
    if spec.needs and not backbone:
        raise UsageError(
            f"{at}: method '{method.name}' needs {', '.join(facets)} of a backbone. Give entry '{entry}' a line 'backbone: …'."
        )
    if not backbone:
        return ()
    if not spec.takes_backbone:
        raise UsageError(f"{at}: method '{method.name}' looks at pixels only. Remove 'backbone' from entry '{entry}'.")
    _check_facets(profile, method.name, backbone, facets, at)
    return facets


def facets_encoded(profile: Profile, entry: str) -> tuple[str, ...]:
    """The facets that the backbone ``encoder`` of an entry gives of pieces of images; refused where it cannot, or where none are encoded."""
    encoder, method = str(profile.entries[entry].encoder), method_of(profile, entry)
    facets: tuple[str, ...] = method.spec.facets_encoded(method.build())
    at = profile.at("entries", entry, "encoder")
    if not facets:
        raise UsageError(f"{at}: method '{method.name}' encodes no pieces of images. Remove 'encoder' from entry '{entry}'.")
    _check_facets(profile, method.name, encoder, facets, at)
    return facets


def _check_facets(profile: Profile, method: str, backbone: str, facets: tuple[str, ...], at: str) -> None:
    """Refuse a backbone that is not there or cannot give some facets."""
    known = {*profile.backbones, *registry.names("backbone")}
    if backbone not in known:
        raise UsageError(f"{at}: Unknown backbone '{backbone}'.{did_you_mean(backbone, known)}")
    module, _ = _backbone(profile, backbone)
    for facet in facets:
        if facet not in module.SPEC.facets:
            has = ", ".join(module.SPEC.facets)
            raise UsageError(f"{at}: method '{method}' needs facet '{facet}', which backbone '{backbone}' cannot give (it has: {has}).")


def datasets_of(profile: Profile, entry: str) -> list[str]:
    """The datasets that an entry runs on, sorted."""
    only = profile.entries[entry].datasets
    for name in only or ():
        profile.check_choice("dataset", name, profile.datasets, "entries", entry, "datasets")
    return sorted(only or profile.datasets)


def fit_dataset(profile: Profile, entry: str) -> str:
    """The other dataset that the method of an entry is fitted to; '' for none: then each dataset is fitted to itself."""
    name = profile.entries[entry].fit_on
    if name is None:
        return ""
    at = ("entries", entry, "fit_on")
    profile.check_choice("dataset", name, profile.datasets, *at)
    method = method_of(profile, entry)
    if not hasattr(method.module, "fit") or method.spec.imported:
        raise UsageError(f"{profile.at(*at)}: method '{method.name}' learns nothing from a dataset. Remove 'fit_on' from entry '{entry}'.")
    return name


def datasets_read(profile: Profile, entry: str) -> list[str]:
    """The datasets whose images an entry reads, sorted: those that it runs on, and that which its method is fitted to."""
    return sorted({*datasets_of(profile, entry), *filter(None, [fit_dataset(profile, entry)])})


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
    curated = profile.curated.get(str(profile.students[student].curated))
    before = _students_before(profile, student)
    return curated is not None and (
        curated.labels not in (False, "none") or any(sees_labels(profile, name, (*seen, student)) for name in before)
    )


def labels_behind(profile: Profile, student: str | None, seen: tuple[str, ...] = ()) -> str:
    """What labels pretrained weights behind a student have seen; '' for none.

    They are those that its encoder started with, those of the backbones that made its masks, and those behind students before it.
    """
    if student is None or student not in profile.students or student in seen:
        return ""
    section = profile.students[student]
    weights = None if section.params.get("weights") else CATALOGUE.get(str(section.params.get("encoder", "")))
    backbones = [name for entry in _entries_behind(profile, student) for name in (entry.backbone, entry.encoder) if name]
    encoders = [encoder_of(profile, name) for name in backbones]
    own = [weights.labels if weights else "", *(encoder.weights.labels for encoder in encoders if encoder.weights)]
    return next(filter(None, own), "") or next(
        filter(None, (labels_behind(profile, name, (*seen, student)) for name in _students_before(profile, student))), ""
    )


def _entries_behind(profile: Profile, student: str) -> list[EntrySection]:
    """The entries whose masks a student learns from."""
    curated = profile.curated.get(str(profile.students[student].curated))
    return [profile.entries[name] for name in curated.all_entries if name in profile.entries] if curated else []


def _students_before(profile: Profile, student: str) -> list[str]:
    """The students that made some of the masks that a student learns from."""
    names = [profile.students[student].self_train, *(entry.params.get("model") for entry in _entries_behind(profile, student))]
    return [str(name) for name in names if name]


def may_be_passed_on(licence: str) -> bool:
    """Whether what is learnt from pictures of this licence may go to a shared store without a person saying so."""
    return bool(re.match(r"(MIT|Apache|BSD|CC0|CC BY( |-SA|$)|public domain)", licence)) and not re.search(r"NC|ND|research", licence)
