"""Clones that share a remote compute each stage once: DVC's run cache, asked in the remote before a stage runs and filled there after it.

Belongs here: what is done around one stage in DVC's own process, for command lines and for Dagster alike. Does not belong here: a format of its
own; entries of the run cache and outputs lie in the remote as ``dvc push --run-cache`` puts them. Imports DVC: only its program uses this.

A stage is shared if DVC can keep it in its run cache and may push all its outputs. A stage that another clone computes is left until nothing
else can be done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from dvc.config import ConfigError
from dvc.exceptions import DvcException, ReproductionError
from dvc.fs import RemoteMissingDepsError

from dagster_dvc.claims import Claims
from dagster_dvc.errors import OF_THIS_MACHINE, DagsterDvcError, Unavailable, UsageError
from dagster_dvc.internals import RunCacheNotFoundError, StageCache, can_hash, copy_between, reproduce, stage_hash, unlocked_repo
from dagster_dvc.remotes import EXTRAS, lacks_extra

if TYPE_CHECKING:
    from dvc.data_cloud import Remote
    from dvc.repo import Repo
    from dvc.stage import Stage
    from dvc_data.hashfile.hash_info import HashInfo

CLAIMS = "claims"
"""Folder of the remote, beside ``runs`` and ``files``."""


class ClaimedElsewhere(DvcException):  # type: ignore[misc]
    """Another clone computes this stage now."""

    def __init__(self, key: str, address: str, holder: str) -> None:
        super().__init__(f"{address} is being computed by {holder}")
        self.key, self.address, self.holder = key, address, holder


class SharedStageCache(StageCache):  # type: ignore[misc]
    """DVC's run cache, continued in the project's default remote.

    Parameters
    ----------
    repo
        The project.
    lease_s
        See ``Claims``.
    """

    def __init__(self, repo: Repo, lease_s: float) -> None:
        super().__init__(repo)
        self.remote = _default_remote(repo)
        self.claims = Claims(self.remote.fs.fs, self.remote.fs.join(self.remote.path, CLAIMS), lease_s)
        self._lost: dict[str, set[HashInfo]] = {}

    def restore(self, stage: Stage, run_cache: bool = True, pull: bool = False, dry: bool = False) -> None:
        """Restore a stage from this clone's run cache, else from the remote's.

        Raises
        ------
        RunCacheNotFoundError
            Nobody has it; this clone has claimed it and must compute it.
        ClaimedElsewhere
            Another clone computes it.
        """
        local = partial(super().restore, stage, run_cache=run_cache, pull=pull, dry=dry)
        try:
            local()
            return
        except RunCacheNotFoundError:
            if dry or not run_cache or not is_shared(stage):
                raise
        key = stage_hash(stage)
        # Looked at again once it is claimed: another clone may have ended between the two.
        for claimed in (False, True):
            with self._reaching():
                if claimed and not self.claims.take(key):
                    raise ClaimedElsewhere(key, stage.addressing, self.claims.holder(key) or "another clone")
                unlocked_repo(self._fetch)(stage)
            try:
                local()
            except RunCacheNotFoundError:
                if claimed:
                    raise
            else:
                self.claims.release()
                return

    def publish(self, stage: Stage) -> None:
        """Put an up-to-date stage into the remote, if it is not there, and give up its claim."""
        if is_shared(stage) and all(out.hash_info for out in stage.outs):
            with self._reaching():
                if self._lost.get(stage_hash(stage)) or not self._entries(stage)[1]:
                    self.save(stage)  # it may come from a lock file alone
                    unlocked_repo(self._push)(stage)
        self.claims.release()

    def _fetch(self, stage: Stage) -> None:
        """Get the entry of a stage, and the outputs that it names, from the remote; nothing where it has none."""
        key = stage_hash(stage)
        there, files = self._entries(stage)
        for name in files:
            copy_between(self.remote.fs, f"{there}/{name}", self.repo.cache.legacy.fs, self._get_cache_path(key, name))
        if not files:
            return
        odb = self.repo.cloud.get_remote_odb(None, "fetch")
        odb.verify = True  # also an object that is damaged in the remote is not taken
        self.repo.cloud.pull(set(self._objects(stage)), odb=odb)
        lost = {each for each in self._objects(stage) if not self.repo.cache.local.exists(each.value)}
        for path in sorted(odb.oid_to_path(each.value) for each in lost - self._lost.get(key, set())):
            print(f"{path} is missing in the remote, or damaged.", file=sys.stderr, flush=True)
        self._lost[key] = lost

    def _push(self, stage: Stage) -> None:
        """Put outputs into the remote, then the entry that names them."""
        key, objects = stage_hash(stage), set(self._objects(stage))
        odb, cache = self.repo.cloud.get_remote_odb(None, "push"), self.repo.cache.local
        for each in self._lost.pop(key, set()) & objects:  # DVC would take it for present
            copy_between(cache.fs, cache.oid_to_path(each.value), odb.fs, odb.oid_to_path(each.value))
        if failed := self.repo.cloud.push(objects, odb=odb).failed:
            raise OSError(f"{len(failed)} files of {stage.addressing} were not taken")
        there, _ = self._entries(stage)
        for name in os.listdir(self._get_cache_dir(key)):
            copy_between(self.repo.cache.legacy.fs, self._get_cache_path(key, name), self.remote.fs, f"{there}/{name}")

    def _entries(self, stage: Stage) -> tuple[str, list[str]]:
        """Where the remote has the entries of a stage, and their names."""
        files, key = self.remote.fs, stage_hash(stage)
        folder = files.join(self.remote.path, "runs", key[:2], key)
        try:
            paths = files.fs.ls(folder, detail=False, refresh=True)
        except FileNotFoundError:
            return folder, []
        return folder, sorted(files.name(path) for path in paths)

    def _objects(self, stage: Stage) -> Iterator[HashInfo]:
        """The outputs that the entry of a stage names, and the files in them as far as their list is here."""
        entry = self._load(stage)
        if entry:
            for objects in self._create_stage(entry, wdir=stage.wdir).get_used_objs().values():
                yield from objects

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say in one sentence what keeps the remote from being used."""
        where = f"The remote '{self.remote.name}' ({self.remote.fs.unstrip_protocol(self.remote.path)})"
        try:
            yield
        except ClaimedElsewhere:
            raise
        except DagsterDvcError as error:
            raise UsageError(f"{where} cannot be shared: {error}.") from error
        except (ConfigError, NotImplementedError) as error:
            raise UsageError(f"{where} cannot be shared: {error or 'its kind cannot store what is shared'}.") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in OF_THIS_MACHINE and error.filename:
                raise
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise Unavailable(f"{where} cannot be used: {said}. Nothing that was finished is lost.") from error


def is_shared(stage: Stage) -> bool:
    """Whether the result of a stage may be got from a remote and put there."""
    return can_hash(stage) and all(out.can_push and (out.use_cache or out.is_metric or out.is_plot) for out in stage.outs)


def _default_remote(repo: Repo) -> Remote:
    name = repo.config["core"].get("remote")
    if not name:
        raise UsageError("No default remote is named. Add the one that the clones share: `dvc remote add --default shared ADDRESS`.")
    address = str(repo.config["remote"].get(name, {}).get("url", ""))
    try:
        return repo.cloud.get_remote()
    except ImportError as error:
        kind = address.partition("://")[0]
        if kind not in EXTRAS:
            raise
        raise UsageError(lacks_extra(name, address, kind)) from error
    except (ConfigError, RemoteMissingDepsError) as error:
        raise UsageError(f"The remote '{name}' ({address}) cannot be used: {' '.join(str(error).split())}") from error


def share_stages(lease_s: float) -> Callable[[], None]:
    """Let this process share each stage that it reproduces. Returns what to call when the process is asked to end: it gives up its claim."""
    alone = reproduce._reproduce
    caches: list[SharedStageCache] = []

    def together(stages: list[Stage], graph: Any = None, **options: Any) -> list[Stage]:
        if not stages:
            return []
        repo = stages[0].repo
        try:
            repo.stage_cache = SharedStageCache(repo, lease_s)
            caches.append(repo.stage_cache)
            return _reproduce(stages, graph, repo.stage_cache, partial(alone, graph=graph, **options))
        except DagsterDvcError as error:
            raise DvcException(str(error)) from error
        finally:
            release()

    def release() -> None:
        for cache in caches:
            cache.claims.release()

    reproduce._reproduce = together
    return release


def _reproduce(stages: list[Stage], graph: Any, cache: SharedStageCache, alone: Callable[[list[Stage]], list[Stage]]) -> list[Stage]:
    """Bring stages up to date in their order, but those that other clones compute, and what reads them, after all others.

    Parameters
    ----------
    stages
        Each after what it reads.
    graph
        Its edges lead from a stage to what it reads; None: each stage reads all before it.
    cache
        Of the project.
    alone
        Brings stages up to date.
    """
    built: list[Stage] = []
    while stages:
        claimed: list[ClaimedElsewhere] = []
        left: list[Stage] = []
        for stage in stages:
            if left if graph is None else any(source in left for source in graph.successors(stage)):
                left.append(stage)
                continue
            try:
                built += alone([stage])
            except ReproductionError as error:
                if not isinstance(error.__cause__, ClaimedElsewhere):
                    raise
                claimed.append(error.__cause__)
                left.append(stage)
            else:
                cache.publish(stage)
        if len(left) == len(stages):
            _wait(cache, claimed)
        stages = left
    return built


def _wait(cache: SharedStageCache, claimed: Iterable[ClaimedElsewhere]) -> None:
    """Wait for other clones, while other runs in this one may go on."""
    for each in claimed:
        print(f"Waiting for {each.holder}, which computes {each.address}.", flush=True)
    cache.repo.lock.unlock()
    try:
        cache.claims.wait(each.key for each in claimed)
    finally:
        cache.repo.lock.lock()
