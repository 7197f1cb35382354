"""``private_models``: the same as ``models``, for students whose pictures' licence does not let them be passed on; DVC does not push them."""

from __future__ import annotations

from uss_dagster.stages.models import produce as produce
