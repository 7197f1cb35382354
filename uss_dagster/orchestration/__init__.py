"""This project's side of Dagster: which assets, checks, jobs and pools there are, on top of the bridge in ``dagster_dvc``.

Belongs here: definitions, schedules, sensors, automation. Does not belong here: how a DVC stage is run or named
(``dagster_dvc``), and any computation. No torch, no great_expectations: every process of Dagster imports this.
"""
