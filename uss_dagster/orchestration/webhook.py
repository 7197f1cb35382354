"""A failed run tells somebody: one POST of JSON to the address in USS_WEBHOOK, where there is one.

The address may hold a secret, so it comes from the environment only, and is never logged.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import json
import os
import urllib.error
import urllib.request

import dagster as dg

ADDRESS = "USS_WEBHOOK"
_TIMEOUT_S = 10


def failure_webhook(on: bool = False) -> dg.SensorDefinition:
    """The sensor; it runs from the start where USS_WEBHOOK is set."""

    @dg.run_failure_sensor(
        name="failure_webhook",
        description=f"Posts a failed run as JSON (run, steps, partition, sentence) to the address in {ADDRESS}.",
        default_status=dg.DefaultSensorStatus.RUNNING if on or os.environ.get(ADDRESS) else dg.DefaultSensorStatus.STOPPED,
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        address = os.environ.get(ADDRESS)
        if not address:
            return dg.SkipReason(f"{ADDRESS} is not set.")
        run = context.dagster_run
        failures = context.get_step_failure_events()
        message = {
            "run_id": run.run_id,
            "steps": [event.step_key for event in failures],
            "partition": run.tags.get("dagster/partition"),
            "error": _sentence(failures[0]) if failures else context.failure_event.message,
        }
        request = urllib.request.Request(address, json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                return None
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "code", None) or type(error).__name__
            return dg.SkipReason(f"The webhook did not take the message ({reason}).")

    return sensor


def _sentence(event: dg.DagsterEvent) -> str:
    """What the stage said, else the first line of the error."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    return failure.error_display_string.strip().splitlines()[0]
