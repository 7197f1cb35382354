"""What Dagster loads (see workspace.yaml)."""

from uss_dagster.orchestration.build import build_defs
from uss_dagster.runtime import quiet_environment

quiet_environment()
defs = build_defs()
