"""Every path of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PARAMS = "params.yaml"
PROFILES = "profiles"
PIPELINES = "pipelines"
PACKAGE_PROFILES = Path(__file__).resolve().parents[1] / PROFILES
"""The profiles that come with the package."""


@dataclass(frozen=True)
class Layout:
    """The folders and files of the project in ``root``.

    An artefact lies where its cell's name says: the cell ``segments/slic_merge/scenes`` writes ``data/segments/slic_merge/scenes``.
    """

    root: Path

    # -- what people edit, and what is planned from it

    @property
    def params(self) -> Path:
        return self.root / PARAMS

    def profile(self, name: str) -> Path:
        """The file of a profile: the project's own, else that of the package."""
        return (self.root / PROFILES if self.has_own(name) else PACKAGE_PROFILES) / f"{name}.yaml"

    def has_own(self, name: str) -> bool:
        """Whether the project has a profile of this name."""
        return (self.root / PROFILES / f"{name}.yaml").is_file()

    def profile_names(self) -> list[str]:
        """Names of the files of profiles, of the project and of the package."""
        folders = (self.root / PROFILES, PACKAGE_PROFILES)
        return sorted({path.relative_to(folder).with_suffix("").as_posix() for folder in folders for path in folder.rglob("*.yaml")})

    @property
    def pipelines(self) -> Path:
        """Folder of the planned pipelines: ``<dataset>/dvc.yaml`` and one parameter file a cell."""
        return self.root / PIPELINES

    # -- artefacts

    def data(self, name: str) -> Path:
        """The artefact of the cell with this name."""
        return self.root / "data" / name

    @property
    def plan_stamp(self) -> Path:
        """What every dataset depends on; it never changes, but cannot be made while the plan is out of date."""
        return self.data("plan")

    def dataset(self, dataset: str) -> Path:
        return self.data(f"datasets/{dataset}")

    def images(self, dataset: str) -> Path:
        return self.dataset(dataset) / "images"

    def truth(self, dataset: str) -> Path:
        return self.dataset(dataset) / "truth"

    def features(self, backbone: str, dataset: str) -> Path:
        return self.data(f"features/{backbone}/{dataset}")

    def segments(self, entry: str, dataset: str) -> Path:
        return self.data(f"segments/{entry}/{dataset}")

    def labels(self, entry: str, dataset: str) -> Path:
        return self.data(f"labels/{entry}/{dataset}")

    def prompted(self, entry: str, dataset: str) -> Path:
        return self.data(f"prompted/{entry}/{dataset}")

    def scores(self, entry: str, dataset: str) -> Path:
        return self.data(f"scores/{entry}/{dataset}")

    def estimates(self, dataset: str) -> Path:
        return self.data(f"estimates/{dataset}")

    def mask_pool(self, name: str) -> Path:
        return self.data(f"mask_pool/{name}")

    def curated(self, name: str) -> Path:
        return self.data(f"curated/{name}")

    def model(self, name: str) -> Path:
        return self.data(f"models/{name}")

    # -- reports

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def leaderboard(self) -> Path:
        return self.reports / "leaderboard"

    @property
    def site(self) -> Path:
        return self.reports / "site"

    def metrics_file(self, entry: str, dataset: str) -> Path:
        """Numbers of an entry over a dataset, for ``dvc metrics``."""
        return self.reports / "metrics" / entry / f"{dataset}.json"

    def curated_summary(self, name: str) -> Path:
        return self.reports / "curated" / f"{name}.json"

    def model_scores(self, name: str) -> Path:
        return self.reports / "models" / f"{name}.json"

    # -- side files of runs: never hashed, never committed, safe to delete

    @property
    def private(self) -> Path:
        return self.root / ".uss"

    @property
    def interpreter(self) -> Path:
        """The path of the Python that planned last on this machine; stages run with it."""
        return self.private / "python"

    def run_facts(self, name: str) -> Path:
        """What the last run of a cell on this machine cost."""
        return self.private / "runs" / f"{name}.json"

    def preview(self, name: str) -> Path:
        return self.private / "runs" / f"{name}.png"

    def stored_shards(self, name: str) -> Path:
        """Finished shards of a cell, under hashes of what they depend on."""
        return self.private / "shards" / name

    def relative(self, path: Path) -> str:
        """A path as DVC names it: from the project folder, or absolute where it lies outside; with forward slashes."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
