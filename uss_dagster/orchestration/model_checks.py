"""The checks of trained students: whether they learnt, and whether they find as much as the version before.

They read the scores on the validation split, which the stage measured; each only warns.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping

import dagster as dg

from dagster_dvc import DvcProject, StageGroup, StageGroups, StageNode
from uss_dagster.artifacts.dvc_cache import cache_folder, cached_file
from uss_dagster.files import read_json
from uss_dagster.orchestration.checks import checks_of, earlier_versions, result
from uss_dagster.stages.models import Models

RECALL, CLICKS, LEARNT = "average_recall", "click_oracle_at_least_max", "loss_fell"
LEAST_LOSS_FALL = 0.3
"""Share by which the loss falls in any training that succeeds."""
RECALL_DROP = 0.02
"""Loss of average recall against the version before that is a warning."""

Verdict = tuple[bool, str]
Scores = Mapping[str, float]
Rule = Callable[[Scores, Scores | None], Verdict]


def model_checks(groups: StageGroups, project: DvcProject) -> list[dg.AssetChecksDefinition]:
    """Three checks for each student."""
    rules: tuple[tuple[str, str, Rule], ...] = (
        (RECALL, "Whether masks of the validation split are found, and no fewer than by the version committed before.", recall),
        (CLICKS, "Whether among the answers to a click the best is at least as good as the one the student trusts most.", clicks),
        (LEARNT, "Whether the loss fell.", learnt),
    )
    checks = (checks_of(groups, Models, name, text, functools.partial(_judge, project=project, rule=rule)) for name, text, rule in rules)
    return list(itertools.chain.from_iterable(checks))


def recall(scores: Scores, before: Scores | None) -> Verdict:
    """Of the average recall. before: scores of the version committed last that differs from this one, if there is one."""
    now = scores.get("ar1000")
    if now is None:
        return False, "There is no validation split, so nothing is known of it: give the curated set one."
    then = before.get("ar1000") if before else None
    if then is None:
        return now > 0, f"Average recall is {now:.3f}."
    return now > 0 and now >= then - RECALL_DROP, f"Average recall is {now:.3f}, it was {then:.3f}."


def clicks(scores: Scores, before: Scores | None) -> Verdict:
    """Of the best answer to a click and the most trusted one."""
    if "click_oracle" not in scores or "click_max" not in scores:
        return False, "There is no validation split, so no click was answered: give the curated set one."
    oracle, trusted = scores["click_oracle"], scores["click_max"]
    return oracle >= trusted, f"Oracle is {oracle:.3f}, Max {trusted:.3f}."


def learnt(scores: Scores, before: Scores | None) -> Verdict:
    """Of the loss."""
    fall = scores["loss_fall"]
    return fall >= LEAST_LOSS_FALL, f"The loss fell by {fall:.0%}; {LEAST_LOSS_FALL:.0%} are expected."


def _judge(group: StageGroup, project: DvcProject, rule: Rule) -> dg.AssetCheckResult:
    files = ((stage, project.root / out) for stage in group.nodes for out in stage.outs if out.endswith(".json"))
    built = [(stage, scores) for stage, file in files if (scores := _scores(read_json(file)))]
    if not built:
        return result(True, "It is not built on this machine.")
    verdicts = [rule(scores, scores_before(stage, project)) for stage, scores in built]
    metadata = {name: value for _, scores in built for name, value in scores.items()}
    return result(all(passed for passed, _ in verdicts), " ".join(sentence for _, sentence in verdicts), metadata)


def scores_before(stage: StageNode, project: DvcProject) -> Scores | None:
    """The scores of the newest committed version that is not the present one, where DVC's cache still has them."""
    for _, outs in earlier_versions(project, stage.address):
        for out in outs:
            if out.path.endswith(".json") and (text := cached_file(cache_folder(project.root), out.hash)):
                return _scores(json.loads(text))
    return None


def _scores(facts: Mapping[str, object]) -> Scores:
    return {name: float(value) for name, value in facts.items() if isinstance(value, int | float)}
