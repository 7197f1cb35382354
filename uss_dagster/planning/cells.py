"""Cells: one stage for one dataset, entry or name, with everything its result depends on.

A stage is a subclass of ``Cell`` in a module of ``uss_dagster/stages``; the module's name is the stage's name. A cell is written to a
small parameter file that DVC watches as a dependency, so a stage computes again exactly when its cell or one of its inputs changes.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from uss_dagster import registry
from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.planning.layout import PIPELINES, Layout
from uss_dagster.weights.catalogue import Weights

if TYPE_CHECKING:
    from uss_dagster.planning.plan import Planner

STAGES = "uss_dagster.stages"
COMPUTES_FEATURES = "uss_dagster.feature_shards"
"""Module that computes features. Named as text, so that it does not count in the fingerprint of cells that read stored ones."""
Facts = dict[str, Any]
"""What a run notes about itself: seconds, memory, counts; never hashed."""


class Plugin(BaseModel):
    """A plug-in and its parameters.

    Parameters
    ----------
    family
        'method', 'backbone' or 'dataset'.
    name
        Name of the plug-in.
    params
        All its parameters, defaults included, as plain values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["method", "backbone", "dataset"]
    name: str
    params: dict[str, Any]

    @property
    def module(self) -> Any:
        return registry.load(self.family, self.name)

    @property
    def spec(self) -> Any:
        return self.module.SPEC

    @property
    def module_name(self) -> str:
        return registry.module_name(self.family, self.name)

    @property
    def weights(self) -> Weights | None:
        """The weights of the catalogue that a backbone loads; None for others, or none."""
        if not hasattr(self.module, "catalogue_weights"):
            return None
        weights: Weights | None = self.module.catalogue_weights(self.build())
        return weights

    @property
    def missing_weights(self) -> str:
        """What has to be fetched before a backbone can load its weights on this machine; '' for nothing."""
        missing = getattr(self.module, "missing_weights", None)
        return str(missing(self.build())) if missing else ""

    def build(self, **changed: object) -> Any:
        """The plug-in's own parameter object."""
        return registry.build_params(self.spec.params, {**self.params, **changed}, f"{self.family} '{self.name}'")


class FeatureSpec(BaseModel):
    """All that the features of an image depend on beside its pixels and the code: for stages that compute them, where none are kept.

    Parameters
    ----------
    encoder
        The backbone and its parameters.
    weights
        Hash of the tensors that it loads; '' for a backbone without weights, or where they were never on this machine.
    store
        Type of number, 'float16' or 'float32', that they are rounded to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoder: Plugin
    weights: str = ""
    store: str = "float16"


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes.

    Parameters
    ----------
    path
        Where it lies.
    push
        Whether it may go to a shared store.
    metric
        DVC shows it as numbers.
    persist
        DVC leaves it in place while the stage runs, and never takes it from an earlier run with the same dependencies.
    """

    path: Path
    push: bool = True
    metric: bool = False
    persist: bool = False


def cell_name(stage: str, *key: str) -> str:
    """The name of the cell of a stage with this key: ``segments/slic_merge/scenes``."""
    return "/".join((stage, *key))


class Cell(BaseModel):
    """One stage for one dataset, entry or name.

    Subclasses add fields and implement ``plan`` and ``run``, and most of them ``inputs``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: ClassVar[str]
    """Name of the stage: that of the module."""
    group: ClassVar[str] = "default"
    """Group of its asset in Dagster."""
    kinds: ClassVar[str] = "parquet"
    """Kind of its asset in Dagster, comma-separated."""
    prerequisite: ClassVar[bool] = False
    """Dagster has no asset of it: it is brought up to date with each stage that reads it."""
    eager: ClassVar[bool] = False
    """Cheap: Dagster may build it by itself when its inputs change."""
    device: ClassVar[str] = ""
    """What it needs one of at a time: 'net' or 'gpu'; see also ``pool``."""
    most_devices: ClassVar[int | None] = None
    """How many GPUs it can use at once; None for any number."""
    key_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that tell the cell from others of its stage; of a cell with a dataset of many, the dataset comes last."""
    left_out_when_none: ClassVar[tuple[str, ...]] = ()
    """Fields that its parameter file does not have where they are None, so that a new field leaves cells without it as they are."""
    preview_by: ClassVar[str | None] = None
    """'module:function' that draws its result for people: (cell, layout) -> PNG bytes. Named as text, so that drawing does not count in
    the stage's fingerprint."""

    code: str = ""
    """Fingerprint of the modules it runs."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.stage = cls.__module__.rpartition(".")[2]

    # -- what a stage defines

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        """The cells of this stage for a profile."""
        raise NotImplementedError

    @property
    def description(self) -> str:
        """One line for people; the field ``title`` by default."""
        return str(getattr(self, "title", self.name))

    def inputs(self, layout: Layout) -> list[Path]:
        """Every file and folder that it reads, its own parameter file left out."""
        return []

    def outputs(self, layout: Layout) -> list[Output]:
        """Every file and folder that it writes; the artefact comes first."""
        return [Output(self.artefact(layout))]

    def computed_features(self) -> dict[str, FeatureSpec]:
        """Backbone → how it computes the features that it reads, for those of which the profile stores none."""
        return {}

    def loaded_backbones(self) -> list[Plugin]:
        """Backbones that it loads."""
        return [spec.encoder for spec in self.computed_features().values()]

    def modules(self) -> list[str]:
        """Plug-in modules that it runs, beside the stage's own module."""
        computing = [COMPUTES_FEATURES] if self.computed_features() else []
        return [*computing, *(encoder.module_name for encoder in self.loaded_backbones())]

    def run(self, layout: Layout) -> Facts:
        """Compute the artefact, check it, and put it in place."""
        raise NotImplementedError

    def without(self, absent: Container[str]) -> Self | None:
        """This cell without the outputs of the cells named ``absent`` among its inputs; None where it needs them."""
        return None

    # -- what follows from it

    @property
    def key(self) -> tuple[str, ...]:
        """The values of ``key_fields``."""
        return tuple(getattr(self, field) for field in self.key_fields)

    @property
    def name(self) -> str:
        """``segments/slic_merge/scenes``: unique among all cells, and where its artefact lies below ``data/``."""
        return cell_name(self.stage, *self.key)

    @property
    def partition(self) -> str | None:
        """The dataset that it belongs to, or None for a cell over all datasets."""
        return getattr(self, "dataset", None)

    @property
    def asset(self) -> str:
        """The name without the dataset, where the cells of several datasets make one asset."""
        parts = self.key[:-1] if self.key and self.key[-1] == self.partition else self.key
        return "/".join((self.stage, *parts))

    @property
    def pool(self) -> str:
        """The limited resource that it needs: 'gpu', 'net', or '' for none."""
        return self.device or ("gpu" if any(encoder.spec.device for encoder in self.loaded_backbones()) else "")

    @property
    def pipeline(self) -> str:
        """The folder of the DVC file that holds its stage, from the project folder; '' for the project folder itself."""
        return f"{PIPELINES}/{self.partition}" if self.partition else ""

    @property
    def stage_name(self) -> str:
        """Its name inside that file."""
        return self.asset.replace("/", "-")

    @property
    def address(self) -> str:
        """Its name for DVC, from the project folder."""
        return f"{self.pipeline}/dvc.yaml:{self.stage_name}" if self.pipeline else self.stage_name

    @property
    def file(self) -> str:
        """Its parameter file, from the project folder."""
        return f"{self.pipeline or PIPELINES}/{self.stage_name}.yaml"

    def artefact(self, layout: Layout) -> Path:
        return layout.data(self.name)

    def all_modules(self) -> tuple[str, ...]:
        """The modules that its code fingerprint starts from: the stage's own and those that the cell names."""
        return (type(self).__module__, *self.modules())

    def expected_code(self) -> str:
        """The fingerprint that the code on the disk gives it."""
        return fingerprint(self.all_modules())

    def check_weights(self) -> None:
        """Refuse weights on this machine that are not those which it was planned to compute features with."""
        for spec in self.computed_features().values():
            check_weights(spec.encoder, spec.weights, self.file)

    def to_plain(self) -> dict[str, Any]:
        """Plain values for its parameter file; the stage comes first, the fingerprint last."""
        values = self.model_dump(mode="json")
        code = values.pop("code")
        values = {name: value for name, value in values.items() if value is not None or name not in self.left_out_when_none}
        return {"stage": self.stage, **values, "code": code}


def check_weights(encoder: Plugin | None, expected: str, file: str) -> None:
    """Refuse a backbone whose weights on this machine are not those that a cell was planned with.

    Parameters
    ----------
    encoder
        The backbone; None checks nothing.
    expected
        Hash of the tensors, from the cell; '' checks nothing.
    file
        The cell's parameter file, for the message.
    """
    if encoder is None or not expected:
        return
    identity = encoder.module.weights_identity(encoder.build())
    if identity not in (None, expected):
        raise UsageError(
            f"The weights of backbone '{encoder.name}' ({encoder.params.get('model', '')}) are not those that {file} was planned with. Run "
            "`uss plan`, then this again (`uss repro` does both)."
        )


class DatasetCell(Cell):
    """A cell that belongs to a dataset."""

    dataset: str


class EntryCell(DatasetCell):
    """A cell of an entry on a dataset.

    Each entry has a DVC file of its own: DVC writes a whole ``dvc.lock`` after each stage, so short ones keep a first run linear.
    """

    key_fields: ClassVar[tuple[str, ...]] = ("entry", "dataset")
    entry: str

    @property
    def pipeline(self) -> str:
        return f"{PIPELINES}/{self.dataset}/{self.entry}"

    @property
    def stage_name(self) -> str:
        return self.stage


@functools.cache
def stage_classes() -> dict[str, type[Cell]]:
    """Stage name → its class, sorted by name: one public module of ``uss_dagster/stages`` each."""
    package = importlib.import_module(STAGES)
    classes = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")):
        members = vars(importlib.import_module(f"{STAGES}.{module}")).values()
        own = [m for m in members if isinstance(m, type) and issubclass(m, Cell) and m.__module__ == f"{STAGES}.{module}"]
        if len(own) != 1:
            raise UsageError(f"{STAGES}.{module} defines {len(own)} stages; one class of Cell a module is expected.")
        classes[module] = own[0]
    return classes


def cell_from_plain(values: Mapping[str, Any], file: str) -> Cell:
    """The cell of a parameter file's values."""
    from pydantic import ValidationError

    stage = values.get("stage")
    classes = stage_classes()
    if not isinstance(stage, str) or stage not in classes:
        raise UsageError(f"{file}: Unknown stage '{stage}'.{did_you_mean(str(stage), classes)} Run `uss plan`, which writes this file.")
    try:
        return classes[stage].model_validate({name: value for name, value in values.items() if name != "stage"})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{file}: {where}: {first['msg']}. Run `uss plan`, which writes this file.") from None
