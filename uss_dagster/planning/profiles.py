"""What people write: ``params.yaml`` laid over the profile it names, checked, with the line in which everything stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from uss_dagster import registry
from uss_dagster.errors import ParameterError, UsageError, UssError, check_choice, did_you_mean
from uss_dagster.files import find_project
from uss_dagster.planning.layout import PARAMS, PROFILES, Layout
from uss_dagster.planning.yaml_files import YamlFile

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
Params = dict[str, Any]
"""Parameters of a plug-in as a person wrote them; the plug-in checks them."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Settings(_Section):
    """What holds for every cell (section ``settings``).

    Parameters
    ----------
    shard_images : int, default 32
        Images in one unit of work and of resuming.
    bootstrap : int, default 200
        Bootstrap replicates for intervals.
    samples : int, default 4
        Images shown for each dataset.
    unscored_samples : int, default 12
        Images shown for each dataset that has no scores, such as one without ground truth.
    grids : list of str, default ['full']
        Where scores compare pixels: 'full' (the image's own) or 'HxW' in cells, such as the patch grid of a paper.
    label_classes : int, default 0
        Classes of the dataset-wide labels that per-image regions are given; 0 for the dataset's number of leaf classes.
    label_regions : float, default 16
        Number of regions an image, about, that these labels are given to.
    """

    shard_images: int = Field(32, ge=1)
    bootstrap: int = Field(200, ge=0)
    samples: int = Field(4, ge=1)
    unscored_samples: int = Field(12, ge=1)
    grids: list[str] = Field(["full"], min_length=1)
    label_classes: int = Field(0, ge=0)
    label_regions: float = Field(16.0, ge=1)

    @field_validator("grids")
    @classmethod
    def _known_grids(cls, grids: list[str]) -> list[str]:
        return _checked_grids(grids)


def _checked_grids(grids: list[str]) -> list[str]:
    for grid in grids:
        if grid != "full" and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", grid):
            raise ValueError(f"an evaluation grid is 'full' or height x width in cells, such as '60x60', not '{grid}'")
    return grids


class TableSection(_Section):
    """What a profile reproduces: a table of a paper.

    Parameters
    ----------
    paper : str
        Of which paper.
    number : str
        Which table, as the paper numbers it.
    note : str, default ''
        What a reader must know of the published figures.
    missing : str, default ''
        Rows of the published table that are not planned, and why.
    """

    paper: str = Field(min_length=1)
    number: str = Field(min_length=1)
    note: str = ""
    missing: str = ""


class PluginSection(_Section):
    """A dataset or a backbone: its kind (by default its own name) and the parameters of that plug-in."""

    kind: str | None = None
    params: Params = {}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: object) -> object:
        return _split_params(cls, values) if isinstance(values, dict) else values


def _split_params(section: type[BaseModel], values: Params) -> Params:
    """The values of a section whose own settings and the parameters of its plug-in stand side by side, apart."""
    own = section.model_fields.keys() - {"params"}
    params = {str(k): v for k, v in values.items() if k not in own}
    return {**{k: v for k, v in values.items() if k in own}, "params": params}


class DatasetSection(PluginSection):
    """A dataset, and what differs on it from what holds for every dataset.

    Parameters
    ----------
    grids : list of str, optional
        As ``Settings.grids``, for this dataset.
    crop : int, optional
        Side of the squares that images are cut to in the centre and scaled to, with their ground truth, before anything is computed.
    """

    grids: list[str] | None = Field(None, min_length=1)
    crop: int | None = Field(None, ge=16)

    @field_validator("grids")
    @classmethod
    def _known_grids(cls, grids: list[str] | None) -> list[str] | None:
        return grids and _checked_grids(grids)


class BackboneSection(PluginSection):
    """A backbone; the type of number in which its features are stored; and ``keep``: if false, stages compute what they read, and store none."""

    store: Literal["float16", "float32"] = "float16"
    keep: bool = True


class EntrySection(_Section):
    """A row of the leaderboard: a method (by default the entry's own name), a backbone, and parameters that differ from the defaults.

    Parameters
    ----------
    method : str, optional
        Name of the method. Default: the entry's own name.
    kind : str, optional
        The same, with the parameters beside it and not below ``params``.
    backbone, params
        Of the method.
    datasets : list of str, optional
        Those that it runs on. Default: all.
    published : str, optional
        'table/row' of ``report/published.yaml``: the published row that it repeats.
    seeds : int, default 1
        Runs with so many seeds, the method's own and the numbers after it; the row is their mean.
    fit_on : str, optional
        The dataset that the method is fitted to, such as another split. Default: the one that is segmented.
    encoder : str, optional
        The backbone that encodes pieces of images, such as the crops of objects. Default: ``backbone``.
    explain : bool, default False
        What the method knows of each image (thresholds, eigenvalues, why a region was not divided) is stored beside its regions, and shown
        on the entry's page.
    """

    method: str | None = None
    kind: str | None = None
    backbone: str | None = None
    params: Params = {}
    datasets: list[str] | None = Field(None, min_length=1)
    title: str | None = None
    published: str | None = None
    seeds: int = Field(1, ge=1, le=100)
    fit_on: str | None = None
    encoder: str | None = None
    explain: bool = False

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: object) -> object:
        if not isinstance(values, dict) or "kind" not in values:
            return values
        if "method" in values:
            raise ValueError("an entry has 'kind' or 'method', not both")
        return _split_params(cls, values)


class CuratedSection(_Section):
    """A training set: masks of one entry or several on a dataset, filtered, with human masks where ``labels`` says so."""

    dataset: str | None = None
    entry: str | None = None
    entries: list[str] = []
    labels: str | bool = "none"
    preset: str = "train"
    params: Params = {}
    mask_pool: Params = {}
    title: str | None = None

    @property
    def all_entries(self) -> list[str]:
        return self.entries or [str(self.entry)]


class StudentSection(_Section):
    """A student: a network trained on a curated set, and on the masks of the student ``self_train`` where it is named."""

    curated: str | None = None
    size: str = "tiny"
    params: Params = {}
    self_train: str | None = None
    title: str | None = None
    push: bool | None = None


_SECTIONS: Mapping[str, tuple[type[_Section], str]] = {
    "datasets": (DatasetSection, "dataset"),
    "backbones": (BackboneSection, "backbone"),
    "entries": (EntrySection, "entry"),
    "curated": (CuratedSection, "curated"),
    "students": (StudentSection, "student"),
}


@dataclass(frozen=True)
class Profile:
    """A merged profile: the file named in params.yaml with params.yaml's own sections laid over it.

    ``lines`` maps the keys of every value to the 'file:line' where it stands. ``table`` is that of a paper which the profile reproduces.
    """

    name: str
    settings: Settings
    datasets: dict[str, DatasetSection]
    backbones: dict[str, BackboneSection]
    entries: dict[str, EntrySection]
    metrics: list[str]
    curated: dict[str, CuratedSection]
    students: dict[str, StudentSection]
    lines: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    title: str = ""
    table: TableSection | None = None

    def at(self, *keys: str) -> str:
        """'file:line' of a key, or of the nearest one above it."""
        return _line(self.lines, keys)

    def check_choice(self, what: str, value: str, known: Iterable[str], *keys: str) -> None:
        """Refuse a value at ``keys`` that is none of the known ones."""
        with errors_at(self.at(*keys)):
            check_choice(what, value, known)


def find_root(start: Path | None = None) -> Path:
    """The project folder: the nearest one upwards that holds params.yaml and dvc.yaml."""
    root = find_project(start)
    if root is None:
        raise UsageError(
            f"No {PARAMS} and dvc.yaml in {(start or Path.cwd()).resolve()} or above. Run this inside a project; `uss init DIR` makes one."
        )
    return root


def profile_names(root: Path) -> list[str]:
    """Names of all profiles of the project and of the package, with their folders; a file whose name begins with an underscore is there to be included."""
    return [name for name in Layout(root).profile_names() if not Path(name).name.startswith("_")]


def read_profile(root: Path, name: str | None = None, alone: bool = False) -> Profile:
    """Read params.yaml and the profile it (or ``name``) names with what that includes, and lay the one over the other.

    alone: leave params.yaml out.
    """
    layout = Layout(root)
    own = YamlFile(layout.params)
    known = profile_names(root)
    profile = name or own.data.get("profile")
    if profile is None:
        names = [name for name in known if layout.has_own(name)] or known
        raise UsageError(f"{PARAMS} names no profile. Add a line such as 'profile: demo'; known: {', '.join(names)}.")
    if profile not in known:
        at = "--profile" if name else own.at("profile")
        raise UsageError(f"{at}: Unknown profile '{profile}'.{did_you_mean(str(profile), known)}")
    merger = _Merger()
    merger.add_profile(layout, str(profile))
    if not alone:
        merger.add(own, extra={"profile", "orchestration"})  # 'orchestration' is read by what Dagster loads: no cell depends on it
    return merger.profile(str(profile))


def activate(path: Path, profile: str) -> None:
    """Rewrite the line of params.yaml that names the profile."""
    text = path.read_text(encoding="utf-8")
    new, count = re.subn(r"(?m)^profile:[ \t]*[^\s#]+", f"profile: {profile}", text, count=1)
    if not count:
        new = f"profile: {profile}\n{text}"
    if new != text:
        path.write_text(new, encoding="utf-8")


# -- merging files ------------------------------------------------------------------------------------------


class _Merger:
    """Collects the sections of files, later ones over earlier ones, and the line of every key."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Params]] = {section: {} for section in _SECTIONS}
        self.settings: Params = {}
        self.metrics: list[str] = ["covering"]
        self.lines: dict[tuple[str, ...], str] = {}
        self.about: Params = {}
        """'title' and 'table' of the profile itself, not of what it includes."""

    def add_profile(self, layout: Layout, name: str, above: tuple[str, ...] = ()) -> None:
        """Add the files that a profile includes, then its own. above: the profiles that include it."""
        folder = PROFILES if layout.has_own(name) else f"{registry.PACKAGE}/{PROFILES}"
        file = YamlFile(layout.profile(name), f"{folder}/{name}.yaml")
        at, included = file.at("include"), file.data.get("include") or []
        for other in included if isinstance(included, list) else [included]:
            if not isinstance(other, str):
                raise UsageError(f"{at}: 'include' is the name of a profile or a list of names, got {other!r}.")
            if other in (*above, name):
                raise UsageError(f"{at}: '{other}' includes itself ({' → '.join((*above, name, other))}).")
            with errors_at(at):
                check_choice("profile", other, layout.profile_names())
            self.add_profile(layout, other, (*above, name))
        self.add(file, extra={"title", "include", "table"})
        self.about = {key: file.data[key] for key in ("title", "table") if key in file.data}
        self._note(file, self.about.get("table"), "table")

    def add(self, file: YamlFile, extra: set[str]) -> None:
        known = {*_SECTIONS, "settings", "metrics", *extra}
        for section, value in file.data.items():
            if section not in known:
                raise UsageError(f"{file.at(section)}: Unknown section '{section}'.{did_you_mean(section, known)}")
            if section in _SECTIONS:
                for item, values in _mapping(value, file, section).items():
                    self._add_item(file, section, str(item), values)
            elif section == "settings":
                settings = _mapping(value, file, section)
                self.settings.update(settings)
                self._note(file, settings, section)
            elif section == "metrics":
                if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
                    raise UsageError(f"{file.at(section)}: metrics must be a list of names, got {value!r}.")
                self.metrics = value
                self._note(file, {}, section)

    def profile(self, name: str) -> Profile:
        """All sections, validated."""
        checked = {
            section: {item: self._validate(cls, values, noun, section, item) for item, values in self.sections[section].items()}
            for section, (cls, noun) in _SECTIONS.items()
        }
        settings = self._validate(Settings, self.settings, "settings", "settings")
        table = self._validate(TableSection, self.about["table"], "table", "table") if "table" in self.about else None
        about = {"title": str(self.about.get("title", "")), "table": table}
        return Profile(name=name, settings=settings, metrics=self.metrics, lines=self.lines, **about, **checked)  # type: ignore[arg-type]

    def _add_item(self, file: YamlFile, section: str, item: str, values: object) -> None:
        items = self.sections[section]
        if values is False:
            if item not in items:
                at = file.at(section, item)
                raise UsageError(f"{at}: '{item}' is switched off, but no '{item}' is in {section}.{did_you_mean(item, items)}")
            del items[item]
            return
        if not _NAME.fullmatch(item):
            suggestion = re.sub(r"[^a-z0-9]+", "_", item.lower()).strip("_") or "my_entry"
            raise UsageError(
                f"{file.at(section, item)}: '{item}' cannot be a name. Use a-z, 0-9 and single underscores, such as '{suggestion}'."
            )
        mapping = _mapping(values, file, section, item)
        self._note(file, mapping, section, item)
        items[item] = _overlay(items.get(item, {}), mapping)

    def _note(self, file: YamlFile, value: object, *keys: str) -> None:
        """Record the lines of a mapping and of everything below it."""
        self.lines[keys] = file.at(*keys)
        if isinstance(value, dict):
            for name, inner in value.items():
                self._note(file, inner, *keys, str(name))

    def _validate(self, cls: type[_S], values: Params, noun: str, *keys: str) -> _S:
        try:
            return cls.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            path = tuple(str(part) for part in first["loc"] if isinstance(part, str) and "[" not in part)
            at = _line(self.lines, (*keys, *path))
            owner = noun if noun in ("settings", "table") else f"{noun} '{keys[-1]}'"
            setting = path[0] if path else ""
            if first["type"] == "extra_forbidden":
                raise UsageError(f"{at}: {owner} has no setting '{setting}'.{did_you_mean(setting, cls.model_fields)}") from None
            if first["type"] == "dict_type":
                raise UsageError(f"{at}: '{setting}' of {owner} must be a mapping, got {first['input']!r}.") from None
            if first["type"] == "bool_type":
                raise UsageError(f"{at}: '{setting}' of {owner} is true or false, got {first['input']!r}.") from None
            reason = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{at}: '{setting}' of {owner}: {reason[0].lower()}{reason[1:]}, got {first['input']!r}.") from None


_S = TypeVar("_S", bound=_Section)


def _mapping(value: object, file: YamlFile, *keys: str) -> Params:
    if value is not None and not isinstance(value, dict):
        raise UsageError(f"{file.at(*keys)}: '{keys[-1]}' must be a mapping (name: value), got {value!r}.")
    return value or {}


def _overlay(below: Params, above: Params) -> Params:
    """``above`` laid over ``below``; mappings are merged, everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _overlay(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return result


def _line(lines: Mapping[tuple[str, ...], str], keys: tuple[str, ...]) -> str:
    return next((lines[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in lines), PARAMS)


# -- plug-ins -----------------------------------------------------------------------------------------------


def load_plugin(profile: Profile, family: Literal["method", "backbone", "dataset", "metric"], name: str, *keys: str) -> Any:
    """The module of a plug-in that a profile names at ``keys``."""
    with errors_at(profile.at(*keys)):
        return registry.load(family, name)


def complete_params(profile: Profile, params_class: type, values: Params, owner: str, *keys: str) -> Params:
    """All parameters of a class as plain values: those of a profile at ``keys``, and defaults for the rest."""
    try:
        return registry.params_to_dict(registry.build_params(params_class, values, owner))
    except UssError as error:
        path = error.path if isinstance(error, ParameterError) else ()
        raise type(error)(f"{profile.at(*keys, *(path or list(values)[:1]))}: {error}") from None


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Puts 'file:line: ' before the message of an error raised inside."""
    try:
        yield
    except UssError as error:
        raise type(error)(f"{place}: {error}") from None
