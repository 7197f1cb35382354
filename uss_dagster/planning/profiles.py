"""What people edit, read and checked: ``params.yaml`` laid over the profile it names, with the line in which everything stands.

Belongs here: reading, names, parameters of plug-ins, and messages that say where. Does not belong here: what cells come of it (``cells``, ``plan``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uss_dagster import registry
from uss_dagster.errors import UsageError, UssError, did_you_mean
from uss_dagster.planning.yaml_files import YamlFile

PARAMS = "params.yaml"
PROFILES = "profiles"
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Settings:
    """What holds for every cell. shard_images: images in one unit of work and resuming. bootstrap: replicates for intervals.
    samples: pictures shown for each dataset. grids: where scores compare pixels, 'full' (the image's own) or 'HxW', such as the
    patch grid of a paper. label_classes, label_regions: of the labels that per-image regions are given for dataset-wide scores,
    how many (0: as many as the dataset has leaf classes), and for about how many regions an image."""

    shard_images: int = 32
    bootstrap: int = 200
    samples: int = 4
    grids: tuple[str, ...] = ("full",)
    label_classes: int = 0
    label_regions: float = 16.0

    def __post_init__(self) -> None:
        if self.shard_images < 1 or self.bootstrap < 0 or self.samples < 1:
            raise ValueError("shard_images and samples must be at least 1, bootstrap at least 0.")
        if self.label_classes < 0 or self.label_regions < 1:
            raise ValueError("label_classes must be at least 0, label_regions at least 1.")
        for grid in self.grids:
            if grid != "full" and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", grid):
                raise ValueError(f"an evaluation grid is 'full' or height x width in cells, such as '60x60', not '{grid}'.")


@dataclass
class Profile:
    """A merged profile: the file named in params.yaml with params.yaml's own sections laid over it."""

    name: str
    settings: Settings
    datasets: dict[str, dict[str, Any]]
    backbones: dict[str, dict[str, Any]]
    entries: dict[str, dict[str, Any]]
    metrics: list[str]
    curated: dict[str, dict[str, Any]] = field(default_factory=dict)
    students: dict[str, dict[str, Any]] = field(default_factory=dict)
    where: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def at(self, *keys: str) -> str:
        """'file:line' of a key, for messages."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.where:
                return self.where[keys[:length]]
        return PARAMS


def find_root(start: Path | None = None) -> Path:
    """The project folder: the nearest one upwards that holds params.yaml and dvc.yaml."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / PARAMS).exists() and (folder / "dvc.yaml").exists():
            return folder
    raise UsageError(f"No {PARAMS} and dvc.yaml in {here} or above. Run this inside a clone of the project.")


def read_profile(root: Path, name: str | None = None) -> Profile:
    """Read params.yaml and the profile it (or ``name``) names, and lay the one over the other."""
    own = YamlFile(root / PARAMS)
    known = sorted(p.stem for p in (root / PROFILES).glob("*.yaml"))
    chosen = name or own.data.get("profile")
    if chosen is None:
        raise UsageError(f"{PARAMS} names no profile. Add a line such as 'profile: demo'; known: {', '.join(known)}.")
    if chosen not in known:
        at = "--profile" if name else own.at("profile")
        raise UsageError(f"{at}: Unknown profile '{chosen}'.{did_you_mean(str(chosen), known)}")
    base = YamlFile(root / PROFILES / f"{chosen}.yaml", f"{PROFILES}/{chosen}.yaml")
    sections = ("datasets", "backbones", "entries", "curated", "students")
    merged: dict[str, dict[str, Any]] = {s: {} for s in sections}
    settings: dict[str, Any] = {}
    metrics: list[str] | None = None
    where: dict[tuple[str, ...], str] = {}
    for file in (base, own):
        for key, value in file.data.items():
            allowed = {*sections, "settings", "metrics", *(("profile", "orchestration") if file is own else ("title",))}
            if key not in allowed:
                raise UsageError(f"{file.at(key)}: Unknown section '{key}'.{did_you_mean(key, allowed)}")
            if key == "orchestration":  # read by what Dagster loads: no cell depends on it
                continue
            if key in sections:
                for item, spec in _mapping_at(value, file, key).items():
                    where[key, str(item)] = file.at(key, str(item))
                    if spec is False:
                        if item not in merged[key]:
                            raise UsageError(
                                f"{file.at(key, item)}: '{item}' is switched off, but no '{item}' is in {key}.{did_you_mean(item, merged[key])}"
                            )
                        del merged[key][item]
                        continue
                    _check_name(str(item), file.at(key, str(item)))
                    given = _mapping_at(spec, file, key, str(item))
                    for inner in given:
                        where[key, str(item), str(inner)] = file.at(key, str(item), str(inner))
                        if isinstance(given[inner], dict):
                            for parameter in given[inner]:
                                where[key, str(item), str(inner), str(parameter)] = file.at(key, str(item), str(inner), str(parameter))
                    merged[key][item] = _overlay(merged[key].get(item, {}), given)
            elif key == "settings":
                settings.update(_mapping_at(value, file, key))
                where.update({(key, str(k)): file.at(key, str(k)) for k in settings if (key, str(k)) not in where})
            elif key == "metrics":
                if not isinstance(value, list) or not value:
                    raise UsageError(f"{file.at(key)}: metrics must be a list of names, got {value!r}.")
                metrics = value
                where[("metrics",)] = file.at(key)
    with located(where.get(("settings", next(iter(settings), "")), base.shown)):
        filled = registry.build_params(Settings, settings, "settings")
    named = merged["datasets"], merged["backbones"], merged["entries"]
    return Profile(str(chosen), filled, *named, metrics or ["covering"], merged["curated"], merged["students"], where)


def activate(path: Path, profile: str) -> None:
    text = path.read_text(encoding="utf-8")
    new, count = re.subn(r"(?m)^profile:[ \t]*[^\s#]+", f"profile: {profile}", text, count=1)
    if not count:
        new = f"profile: {profile}\n{text}"
    if new != text:
        path.write_text(new, encoding="utf-8")


# -- names and parameters -----------------------------------------------------------------------------------


def plugin(profile: Profile, family: str, name: str, keys: tuple[str, ...]) -> Any:
    with located(profile.at(*keys)):
        return registry.load(family, name)


def checked_params(profile: Profile, module: Any, given: Mapping[str, Any], keys: tuple[str, ...], owner: str) -> dict[str, Any]:
    for name in given:
        if name not in {f.name for f in dataclasses.fields(module.SPEC.params)}:
            with located(profile.at(*keys, name)):
                registry.build_params(module.SPEC.params, {name: given[name]}, owner)
    with located(profile.at(*keys, *list(given)[:1])):
        return registry.params_to_dict(registry.build_params(module.SPEC.params, given, owner))


def _mapping_at(value: Any, file: YamlFile, *keys: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{file.at(*keys)}: '{keys[-1]}' must be a mapping (name: value), got {value!r}.")
    return value


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``; mappings are merged, everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        mergeable = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _overlay(result[key], value) if mergeable else value
    return result


def _check_name(name: str, at: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{at}: '{name}' cannot be a name. Use a-z, 0-9 and single underscores, such as '{_suggest(name)}'.")


def _suggest(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "my_entry"


class located:  # noqa: N801 - reads as a statement
    """Puts 'file:line: ' before the message of an error raised inside."""

    def __init__(self, at: str) -> None:
        self.at = at

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UssError):
            raise type(error)(f"{self.at}: {error}") from None
