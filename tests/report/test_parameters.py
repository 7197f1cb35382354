"""Parameters of sections on the pages: dotted names in tables and commands, mappings in profiles."""

from __future__ import annotations

import dataclasses

from uss_dagster.report.facts import EntryFacts
from uss_dagster.report.method_pages import _difference, _segment_command, _variant_example
from uss_dagster.report.parameters import parameters_of

CHANGED = {"pool": {"most": 400}, "leaves": {"trees": 3}}


def entry(params):
    return EntryFacts(method="unsam", backbone="patches", encoder="patches", params=params, parameters=parameters_of("unsam", params))


def test_every_parameter_of_a_section_has_a_row():
    rows = {row.name: (row.value, row.default) for row in parameters_of("unsam", CHANGED)}
    assert len(rows) == 41
    assert rows["pool.most"] == (400, None)
    assert rows["leaves.trees"] == (3, 6)
    assert rows["cuts.tau"] == (0.15, 0.15)
    assert rows["merge.clusters"][0] == [64.0, 32.0, 16.0, 8.0, 4.0, 2.0]


def test_commands_and_profiles_name_parameters_of_sections():
    facts = entry(CHANGED)
    assert _segment_command(facts).endswith("--method unsam --backbone patches --param pool.most=400 --param leaves.trees=3")
    deep = dataclasses.replace(facts, params={}, backbone="saliency", encoder="vit", encoder_params={"model": "dinov2_vits14_saliency"})
    assert _segment_command(deep).endswith("--method unsam --backbone vit --backbone-param model=dinov2_vits14_saliency")
    assert "params: {pool: {most: 400}, leaves: {trees: 3}, preset: clean}" in _variant_example("mine", facts)
    assert _difference(facts, entry({"pool": {"most": 7}})) == "leaves.trees = its default, pool.most = 7"
