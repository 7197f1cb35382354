"""A program that prints the status of many stages as one JSON object, from one reading of the project.

    python status_program.py [ADDRESS …]        in the project's root; all stages by default

``dvc status A B C`` reads every dvc.yaml again for each address, and gives no answer at all while one of the stages runs. This program gives
``busy`` for that one. Its last line maps addresses to what DVC's own status of the stage says; stages in step are left out.

DVC takes and releases the lock of each path around the status of a stage. Here that is done only where another process holds one: none can
be taken while this program holds DVC's lock of the project.
"""

import inspect
import json
import sys
from pathlib import Path

BUSY = "busy"


def states(addresses: list[str]) -> dict[str, object]:
    """Address to DVC's list of changes, or to ``busy``."""
    from dvc.lock import LockError
    from dvc.repo import Repo

    from dagster_dvc.dvc_program import separate_stores
    from dagster_dvc.internals import Stage, lock_repo
    from dagster_dvc.runner import lock_holders
    from dagster_dvc.yaml_memory import yaml_remembered

    separate_stores()
    changes: dict[str, object] = {}
    root = Path.cwd()
    with yaml_remembered(root), Repo(".", _wait_for_lock=True) as repo, lock_repo(repo):
        status = Stage.status if lock_holders(root) else inspect.unwrap(Stage.status)
        stages = {stage.addressing: stage for stage in repo.index.stages}
        for address in addresses or [address for address, stage in stages.items() if not stage.is_data_source]:
            if address not in stages:
                changes[address] = ["no longer in dvc.yaml"]
                continue
            try:
                changes |= status(stages[address])
            except LockError:
                changes[address] = BUSY
    return changes


def main() -> None:
    from dvc.exceptions import DvcException

    try:
        print(json.dumps(states(sys.argv[1:])))
    except DvcException as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
