"""The record beside a dataset that was fetched: which licence was accepted, and each archive with its checksums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from uss_dagster.errors import BadData
from uss_dagster.files import write_whole

RECORD = "uss-source.json"
"""Name of the record's file, in the dataset's folder."""

ArchiveRecord = TypedDict("ArchiveRecord", {"name": str, "size": int, "md5": str, "sha256": str, "from": str})
"""One archive: its official name, bytes, checksums, and the address or 'a local file'."""


class SourceRecord(TypedDict):
    """What ``uss-source.json`` holds. accepted: how the licence was accepted. tree: the data came as an extracted tree."""

    dataset: str
    licence: str
    accepted: str
    tree: bool
    archives: list[ArchiveRecord]


def read_record(folder: Path) -> SourceRecord | None:
    """The record of a dataset's folder; None where there is none, so that the data was put there by other means."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record["licence"], record["accepted"], record["archives"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{folder / RECORD} is damaged ({error!r}). Remove {folder} and get the dataset again.") from error
    return record


def write_record(folder: Path, record: SourceRecord) -> None:
    """Write the record, as a new file: the old one may be a hard link to that of another folder."""
    write_whole(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
