"""The checks that trained students have beside their validation: whether they learnt, and whether they still find as much as they did.

They read the scores on the validation split, which the stage measured; each only warns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg

from uss_dagster.dagster_dvc import AssetFamily, DvcProject, DvcTranslator, StageNode, families

MODELS = "models"
RECALL, CLICKS, LEARNT = "average_recall", "click_oracle_at_least_max", "loss_fell"
LEAST_FALL = 0.3
"""Share by which the loss falls in any training that came to something."""
FELL = 0.02
"""Average recall that is lost to the version before, from which on this warns."""

Verdict = tuple[bool, str]
Scores = Mapping[str, float]


def model_checks(project: DvcProject, translator: DvcTranslator) -> list[dg.AssetChecksDefinition]:
    """Three checks for each student."""
    found = families(project, translator)
    students = [family for key, family in found.items() if key.path[0] == MODELS]
    rules = (
        (RECALL, "Whether masks of the validation split are found, and no fewer than by the version committed before.", recall),
        (CLICKS, "Whether among the answers to a click the best is at least as good as the one the student trusts most.", clicks),
        (LEARNT, "Whether the loss fell.", learnt),
    )
    return [_check(family, project, *rule) for family in students for rule in rules]


def recall(scores: Scores, before: Scores | None) -> Verdict:
    """before: scores of the version committed last that differs from this one, if there is one."""
    now = scores.get("ar1000")
    if now is None:
        return False, "There is no validation split, so nothing is known of it: give the curated set one."
    said = f"Average recall is {now:.3f}"
    then = before.get("ar1000") if before else None
    if then is None:
        return now > 0, f"{said}."
    return now > 0 and now >= then - FELL, f"{said}, it was {then:.3f}."


def clicks(scores: Scores, before: Scores | None) -> Verdict:
    """Of the best answer to a click and the most trusted one."""
    if "click_oracle" not in scores or "click_max" not in scores:
        return False, "There is no validation split, so no click was answered: give the curated set one."
    oracle, trusted = scores["click_oracle"], scores["click_max"]
    return oracle >= trusted, f"Oracle is {oracle:.3f}, Max {trusted:.3f}."


def learnt(scores: Scores, before: Scores | None) -> Verdict:
    """Of the loss."""
    fall = scores["loss_fall"]
    return fall >= LEAST_FALL, f"The loss fell by {fall:.0%}; {LEAST_FALL:.0%} are expected."


def _check(
    family: AssetFamily, project: DvcProject, name: str, description: str, rule: Callable[[Scores, Scores | None], Verdict]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=family.key, name=name, description=description)
    def judge() -> dg.AssetCheckResult:
        rows = [(stage, scores) for stage in family.nodes if (scores := _scores(_file(stage, project.root))) is not None]
        if not rows:
            return dg.AssetCheckResult(passed=True, description="It is not built on this machine.")
        verdicts = [rule(scores, _before(stage, project)) for stage, scores in rows]
        return dg.AssetCheckResult(
            passed=all(passed for passed, _ in verdicts),
            severity=dg.AssetCheckSeverity.WARN,
            description=" ".join(said for _, said in verdicts),
            metadata={key: value for _, scores in rows for key, value in scores.items()},
        )

    return judge


def _file(stage: StageNode, root: Path) -> Path:
    return next((root / out for out in stage.outs if out.endswith(".json")), root / "missing")


def _before(stage: StageNode, project: DvcProject) -> Scores | None:
    """The scores of the newest committed version that is not the present one, where DVC's cache still has them."""
    present = project.outs_version(stage.address)
    for _, outs in project.committed_outs(stage.address):
        file = next((out for out in outs if out.path.endswith(".json")), None)
        if file is not None and {out.path: out.hash for out in outs} != dict(present):
            kept = project.cached(file.hash)
            return _scores(kept) if kept else None
    return None


def _scores(path: Path) -> Scores | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
