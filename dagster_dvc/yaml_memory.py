"""What DVC parsed and checked of its YAML files before, by their content: reading 1,000 dvc.yaml and dvc.lock files takes it seconds.

A file is parsed again when its text has another hash, or DVC another version. What JSON cannot hold as it is, is not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster_dvc.whole_files import read_json, write_json

MEMORY = Path(".dvc") / "tmp" / "dagster_dvc" / "yaml.json"


@contextmanager
def yaml_remembered(root: Path) -> Iterator[None]:
    """In the block, DVC, in this process, takes the content of its files from the memory of a project; then that is brought up to date."""
    from dvc import __version__

    from dagster_dvc.internals import strictyaml

    parse = strictyaml.load
    before = dict(read_json(root / MEMORY))
    after: dict[str, object] = {}

    def load(
        path: str, schema: Callable[[object], object] | None = None, fs: object = None, encoding: str = "utf-8", round_trip: bool = False
    ) -> tuple[object, str]:
        text = None
        if schema is not None and not round_trip:
            with suppress(OSError, UnicodeDecodeError):  # which DVC explains, or which are in a commit
                text = Path(path).read_text(encoding)
        if text is None or getattr(fs, "protocol", "local") != "local":
            return parse(path, schema, fs, encoding, round_trip)  # type: ignore[no-any-return]
        key = hashlib.sha256(f"{__version__} {Path(path).name}\n{text}".encode()).hexdigest()
        if key in before:
            after[key] = before[key]
            return json.loads(json.dumps(before[key])), text  # DVC changes what it gets
        content, text = parse(path, schema, fs, encoding, round_trip)
        with suppress(TypeError):
            if json.loads(json.dumps(content)) == content:
                after[key] = content
        return content, text

    strictyaml.load = load
    try:
        yield
    finally:
        strictyaml.load = parse
    if after != before:
        with suppress(OSError):
            write_json(root / MEMORY, after)
