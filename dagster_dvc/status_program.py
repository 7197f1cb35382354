"""A program that prints the status of many stages as one JSON object, from one reading of the project.

    python status_program.py [ADDRESS …]        in the project's root; all stages by default

``dvc status A B C`` reads every dvc.yaml again for each address, and gives no answer at all while one of the stages runs. This program gives
``busy`` for that one. Its last line maps addresses to what DVC's own status of the stage says; stages in step are left out. It uses
DVC's Python API and imports nothing else.
"""

import json
import sys

BUSY = "busy"


def states(addresses: list[str]) -> dict[str, object]:
    """Address to DVC's list of changes, or to ``busy``."""
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    changes: dict[str, object] = {}
    with Repo(".", _wait_for_lock=True) as repo, lock_repo(repo):
        stages = {stage.addressing: stage for stage in repo.index.stages}
        for address in addresses or [address for address, stage in stages.items() if not stage.is_data_source]:
            if address not in stages:
                changes[address] = ["no longer in dvc.yaml"]
                continue
            try:
                changes |= stages[address].status()
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
