"""docs/datasets.md says of every dataset what its adapter says."""

import re

import pytest
from projects import SOURCE

from uss_dagster import registry
from uss_dagster.commands.data import markdown_tables
from uss_dagster.downloads.archives import is_archive

PAGE = (SOURCE / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_adapters():
    shown = re.search(r"<!-- datasets -->\n(.*)\n<!-- end -->", PAGE, re.S)
    assert shown is not None
    assert shown[1] == "\n".join(markdown_tables()), "run `uss data list --markdown` and put its output between the marks"


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_a_spec_is_fit_to_be_fetched(name):
    """What `uss data get` and the table rely on."""
    spec = registry.load("dataset", name).SPEC
    assert spec.name == name
    assert spec.truth in ("classes", "annotators", "instances", "none")
    assert spec.licence
    assert spec.citation or not spec.homepage
    names = [archive.name for archive in spec.archives]
    assert len(set(names)) == len(names)
    for archive in spec.archives:
        assert "/" not in archive.name
        assert not archive.under.startswith("/")
        assert ".." not in archive.under.split("/")
        assert re.fullmatch("(?:[0-9a-f]{32})?", archive.md5)
        assert re.fullmatch("(?:[0-9a-f]{64})?", archive.sha256)
        assert is_archive(archive.name) or archive.name.lower().endswith((".json", ".txt", ".csv", ".mat", ".parquet")), archive.name
        for url in archive.urls:
            assert re.match(r"https?://[\w.-]+/", url)
    if any(not archive.urls for archive in spec.archives):
        assert spec.instructions, "what cannot be fetched needs instructions"
