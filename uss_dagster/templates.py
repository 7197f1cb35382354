"""HTML pages from jinja2 templates. Every value is escaped, and a name that a template uses but nobody passed is an error.

A package keeps its templates in a folder ``templates`` beside its modules. The module that calls ``render`` names the folder in its
``READS``, so that the templates count in the fingerprint of what is made with them.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def render(package: str, template: str, **values: object) -> str:
    """Fill in a template of a package.

    Parameters
    ----------
    package : str
        Import name of the package that holds the folder ``templates``.
    template : str
        Name of the template's file, for example ``page.html.j2``.
    **values
        What the template may use. Text is escaped; only a template can mark something as HTML, with the filter ``safe``.

    Returns
    -------
    str
        The text. Equal values give equal text.

    Raises
    ------
    jinja2.UndefinedError
        If the template uses a name that is not among ``values``.
    """
    return _environment(package).get_template(template).render(**values)


@cache
def _environment(package: str) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here, because commands that write no page import callers too

    folder = resources.files(package) / "templates"
    return Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
