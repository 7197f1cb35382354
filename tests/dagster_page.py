"""A running page of Dagster, asked over GraphQL as its own scripts ask it."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass
class DagsterPage:
    """The page at an address."""

    url: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def runs(self) -> dict[str, str]:
        """Run id → status."""
        found = self.ask("{ runsOrError { ... on Runs { results { runId status } } } }")
        return {run["runId"]: run["status"] for run in found["runsOrError"]["results"]}

    def launch(self, asset: str, partition: str) -> str:
        """Start a run of one partition of one asset, as the page's own dialog would; its id."""
        launched = self.ask(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p)"
            " { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p={
                "selector": {
                    "repositoryLocationName": "uss_dagster",
                    "repositoryName": "__repository__",
                    "jobName": "__ASSET_JOB",
                    "assetSelection": [{"path": asset.split("/")}],
                },
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
            },
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def events(self, run: str) -> list[dict[str, Any]]:
        query = """query($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
            __typename
            ... on MessageEvent { message stepKey }
            ... on ExecutionStepFailureEvent { error { message } failureMetadata { description metadataEntries { label } } }
            ... on AssetCheckEvaluationEvent { evaluation { checkName success description assetKey { path } } }
        } } } }"""
        return self.ask(query, run=run)["logsForRun"]["events"]
