"""Templates: values are escaped, a missing value is an error, and equal values give equal text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from uss_dagster.templates import render

HOSTILE = """<b onclick="x">'&"</b>"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with two templates."""
    home = tmp_path / "templates_of_a_test"
    (home / "templates").mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "templates" / "base.html.j2").write_text("<title>{{ title }}</title>\n{% block body %}{% endblock %}\n")
    (home / "templates" / "page.html.j2").write_text(
        '{% extends "base.html.j2" %}\n{% macro bold(x) %}<b>{{ x }}</b>{% endmacro %}\n{% block body %}\n<a href="{{ title }}">{{ bold(title) }}</a>\n'
        "{{ code|safe }}\n{% for n in numbers %}{{ n }}{% endfor %}\n{% endblock %}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield home.name
    sys.modules.pop(home.name, None)


def test_values_are_escaped_also_in_attributes_and_macros(package: str) -> None:
    text = render(package, "page.html.j2", title=HOSTILE, code="<i>&</i>", numbers=range(3))
    escaped = "&lt;b onclick=&#34;x&#34;&gt;&#39;&amp;&#34;&lt;/b&gt;"
    assert text == f'<title>{escaped}</title>\n<a href="{escaped}"><b>{escaped}</b></a>\n<i>&</i>\n012'
    assert render(package, "page.html.j2", title=HOSTILE, code="<i>&</i>", numbers=range(3)) == text


def test_what_is_missing_is_an_error(package: str) -> None:
    with pytest.raises(UndefinedError, match="'code' is undefined"):
        render(package, "page.html.j2", title="", numbers=[])
    with pytest.raises(TemplateNotFound, match="other"):
        render(package, "other.html.j2")
