"""Stages of dvc.yaml files without templates, read without DVC's parser, which needs many times as long.

A project is read here only where it can be read in one way: every file, key, type and scalar is one that DVC takes as it is written.
Anything else, such as templates, addresses elsewhere, and whatever DVC refuses, is left to DVC, which also says what is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from dvc.repo import Repo

Plain = dict[str, Any]
"""A mapping in a YAML file."""
PROJECT_FILE, DATA_FILE, PARAMS_FILE = "dvc.yaml", ".dvc", "params.yaml"
_OUT_FLAGS = {"cache": bool, "persist": bool, "push": bool, "remote": str, "desc": str, "type": str}
_PLOT_FLAGS = {**_OUT_FLAGS, **dict.fromkeys(("template", "x", "y", "x_label", "y_label", "title"), str), "header": bool}
_STAGE_KEYS = {"cmd", "wdir", "deps", "params", "outs", "metrics", "plots", "frozen", "always_changed", "desc", "meta"}
_TOP_KEYS = {"stages", "metrics", "params", "plots"}
_TOP_PLOT_KEYS = {"x", "y", "x_label", "y_label", "title", "template"}
_DATA_KEYS = {"outs", "wdir", "frozen", "desc"}
_DATA_OUT_KEYS = {"md5", "size", "nfiles", "hash", "path", "isexec", "cache", "push", "persist"}
_NAME = re.compile(r"[\w-]+")


class NotPlain(Exception):
    """Something that only DVC can read, or that it would refuse."""


class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which each scalar means the same in YAML 1.1, which this parser knows, and in YAML 1.2, which DVC reads."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Plain:
        mapping: Plain = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value) or not all(isinstance(key, str) for key in mapping):
            raise NotPlain  # a key twice, or one that is no text
        return mapping


def _refuse(loader: PlainLoader, node: yaml.Node) -> None:
    raise NotPlain


_SEVERAL = "!several"
"""Tag of scalars that are text to one version of YAML and something else to the other, or that they write differently."""
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^(?:0|-?[1-9][0-9]*)$"), list("-0123456789"))
for _first, _resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        PlainLoader.add_implicit_resolver(_SEVERAL, _pattern, [_first])
PlainLoader.add_implicit_resolver(_SEVERAL, re.compile(r"^[-+]?[._]*[0-9_][0-9._]*(?:[eE][-+]?[0-9_]+)?$"), list("-+._0123456789"))
PlainLoader.add_implicit_resolver(_SEVERAL, re.compile(r"^[-+]?0[box][0-9a-fA-F_]+$"), list("-+0"))
PlainLoader.add_constructor(_SEVERAL, _refuse)


def read(repo: Repo) -> list[Plain] | None:
    """The stages of a project, as ``StageNode`` has its fields, in DVC's order; None where DVC has to read them."""
    stages: list[Plain] = []
    outs: set[str] = set()
    try:
        for path in _files(repo, outs):
            folder = os.path.relpath(os.path.dirname(path), repo.root_dir)
            if path.endswith(DATA_FILE):
                of_file: list[Plain] = []
                outs.update(_abs(repo, out) for out in _data_outs(_content(path), folder))
            else:
                of_file = list(_stages_of(_content(path), folder))
                _check_variables(os.path.join(os.path.dirname(path), PARAMS_FILE))
            written = [_abs(repo, out) for stage in of_file for out in stage["outs"]]
            if any(repo.dvcignore.is_ignored(repo.fs, out, ignore_subrepos=False) for out in written):
                raise NotPlain
            outs.update(written)
            stages += of_file
    except (NotPlain, OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None
    return stages


def _files(repo: Repo, outs: set[str]) -> Iterator[str]:
    """The dvc.yaml and .dvc files that DVC sees: none that it or git ignores, and none inside an output. (``outs`` grows meanwhile.)"""
    for folder, folders, files in repo.dvcignore.walk(repo.fs, repo.root_dir, followlinks=False):
        for file in files:
            path = f"{folder}{os.sep}{file}"
            if (file == PROJECT_FILE or file.endswith(DATA_FILE)) and not repo.scm.is_ignored(path):
                yield path
        paths = {name: f"{folder}{os.sep}{name}" for name in folders}
        folders[:] = [name for name, path in paths.items() if path not in outs and not repo.scm.is_ignored(f"{path}{os.sep}")]


def _content(path: str) -> Plain:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    content = None if "${" in text else yaml.load(text, Loader=PlainLoader)
    return _mapping(content)


def _check_variables(path: str) -> None:
    """DVC reads a params.yaml beside a dvc.yaml, used or not, and refuses one that it cannot read."""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        _check_values(_mapping(content), (str, bool, int, float, type(None)))


def _stages_of(content: Plain, folder: str) -> Iterator[Plain]:
    if not content.keys() <= _TOP_KEYS:
        raise NotPlain
    for kind in ("metrics", "params"):
        _texts(content.get(kind, []))
    for plot in _items(content.get("plots", [])):
        for options in [] if isinstance(plot, str) else _mapping(plot).values():
            if not _mapping(options or {}).keys() <= _TOP_PLOT_KEYS:
                raise NotPlain
            for axis, option in (options or {}).items():
                _check_axis(axis, option)
    for name, entry in _mapping(content.get("stages", {})).items():
        if not _NAME.fullmatch(name):
            raise NotPlain
        yield _stage(name if folder == "." else f"{folder}/{PROJECT_FILE}:{name}", _mapping(entry), folder)


def _check_axis(axis: str, option: Any) -> None:
    """``x`` and ``y`` may name files with their columns, ``y`` several; all else of a plot is text."""
    if isinstance(option, str):
        return
    if axis not in ("x", "y"):
        raise NotPlain
    columns = list(option.values()) if isinstance(option, dict) else [option]
    if not all(isinstance(column, str) or (axis == "y" and _texts(column)) for column in columns):
        raise NotPlain


def _stage(address: str, entry: Plain, folder: str) -> Plain:
    if not entry.keys() <= _STAGE_KEYS or "cmd" not in entry:
        raise NotPlain
    _check_types(entry, {"wdir": str, "frozen": bool, "always_changed": bool, "desc": str, "meta": dict})
    _check_values(entry.get("meta", {}), (str, bool, int, type(None)))
    cmd = entry["cmd"] if isinstance(entry["cmd"], str) else "\n".join(_texts(entry["cmd"]))
    wdir = _inside(folder, entry.get("wdir", "."))
    outs, metrics, plots = (
        [_file(wdir, out) for out in _out_paths(entry.get(kind, []), _PLOT_FLAGS if kind == "plots" else _OUT_FLAGS)]
        for kind in ("outs", "metrics", "plots")
    )
    return {
        "address": address,
        "cmd": cmd,
        "deps": sorted(_file(wdir, dep) for dep in _texts(entry.get("deps", []))),
        "outs": sorted([*outs, *metrics, *plots]),
        "params": [(_file(wdir, file), names) for file, names in _params(_items(entry.get("params", []))).items()],
        "meta": entry.get("meta"),
        "wdir": wdir,
        "metrics": sorted(metrics),
        "plots": sorted(plots),
        "desc": entry.get("desc"),
    }


def _out_paths(items: Any, flags: dict[str, type]) -> list[str]:
    paths: dict[str, None] = {}
    for item in _items(items):
        for path, options in ({item: {}} if isinstance(item, str) else _mapping(item)).items():
            if not _mapping(options).keys() <= flags.keys():
                raise NotPlain
            _check_types(options, flags)
            paths[path] = None
    return list(paths)


def _params(items: list[Any]) -> dict[str, list[str]]:
    """File → the names in it that a stage reads, none where it reads all of the file."""
    by_file = [({PARAMS_FILE: [item]} if isinstance(item, str) else _mapping(item), isinstance(item, str)) for item in items]
    whole = {file for names_of, _ in by_file for file, names in names_of.items() if not names}
    params: dict[str, list[str]] = {}
    for names_of, named_alone in by_file:
        for file, names in names_of.items():
            if file not in whole:
                params.setdefault(file, []).extend(_texts(names))
            elif not named_alone:
                params[file] = []
    return params


def _data_outs(content: Plain, folder: str) -> Iterator[str]:
    """What a .dvc file tracks. It has no command, so it is no stage."""
    if not content.keys() <= _DATA_KEYS:
        raise NotPlain
    _check_types(content, {"wdir": str, "frozen": bool, "desc": str})
    for out in _items(content.get("outs", [])):
        if not _mapping(out).keys() <= _DATA_OUT_KEYS:
            raise NotPlain
        yield _file(_inside(folder, content.get("wdir", ".")), out.get("path"))


def _file(wdir: str, name: Any) -> str:
    """A path from the root. DVC refuses its own files as outputs or dependencies."""
    path = _inside(wdir, name)
    if path.endswith(DATA_FILE) or os.path.basename(path) == PROJECT_FILE:
        raise NotPlain
    return path


def _inside(folder: str, name: Any) -> str:
    """A relative path that starts from a folder, from the root; not an address, and nothing outside the root."""
    if not isinstance(name, str) or not name or name[0] in "~/" or re.search(r"[:\\\0]", name):
        raise NotPlain
    path = os.path.normpath(os.path.join(folder, name))
    if path.split(os.sep)[0] == os.pardir:
        raise NotPlain
    return path


def _abs(repo: Repo, path: str) -> str:
    return os.path.join(repo.root_dir, path)


def _mapping(value: Any) -> Plain:
    if not isinstance(value, dict):
        raise NotPlain
    return value


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NotPlain
    return value


def _texts(value: Any) -> list[str]:
    if not all(isinstance(item, str) for item in _items(value)):
        raise NotPlain
    return list(value)


def _check_types(mapping: Plain, types: dict[str, type]) -> None:
    for name, value in mapping.items():
        if name in types and not isinstance(value, types[name]):
            raise NotPlain


def _check_values(value: Any, scalars: tuple[type, ...]) -> None:
    """Lists and mappings, at any depth, of these scalars only."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_values(item, scalars)
    elif type(value) not in scalars:
        raise NotPlain
