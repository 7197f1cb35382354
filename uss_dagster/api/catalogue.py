"""``uss.methods``: what there is, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uss_dagster import registry
from uss_dagster.methods.base import features_read
from uss_dagster.report.parameters import descriptions_of, parameters_of, value_text

if TYPE_CHECKING:
    import pandas as pd


def methods(name: str | None = None) -> pd.DataFrame:
    """The methods, or the parameters of one.

    Parameters
    ----------
    name : str, optional
        A method. Default: None, all of them.

    Returns
    -------
    pandas.DataFrame
        Of all methods, a row for each by name: ``title``, ``summary``, ``features`` (which it needs, such as "tokens"; "tokens, optional";
        or "none") and ``parameters`` (their number). Of one, a row for each parameter by name: ``default``, ``values`` (its type, or all it
        can be) and ``description``.

    Raises
    ------
    UsageError
        There is no such method.

    Examples
    --------
    >>> import uss_dagster as uss
    >>> uss.methods().loc["kmeans", "features"]
    'tokens'
    >>> uss.methods("slic_merge").loc["superpixels", "default"]
    400
    """
    import pandas as pd

    if name is None:
        specs = [registry.load("method", method).SPEC for method in registry.names("method")]
        rows = [(spec.title, spec.summary, features_read(spec), len(registry.flat_types(spec.params))) for spec in specs]
        return pd.DataFrame(rows, [spec.name for spec in specs], ["title", "summary", "features", "parameters"])
    about = descriptions_of(registry.load("method", name).SPEC.params)
    parameters = parameters_of(name, {})
    values = [", ".join(map(value_text, one.choices)) or one.kind for one in parameters]
    table = pd.DataFrame(
        {"values": values, "description": [about.get(one.name, "") for one in parameters]}, [one.name for one in parameters]
    )
    table.insert(0, "default", pd.Series([one.default for one in parameters], table.index, dtype=object))
    return table
