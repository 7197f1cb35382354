"""Find out which unsupervised segmentation method to use, on your images.

>>> import uss_dagster as uss
>>> regions = uss.segment("photo.jpg")  # doctest: +SKIP

The public names are listed in ``__init__.pyi`` and imported when first used, so that ``import uss_dagster`` costs nothing. Packages form
layers, each importing only those below it: ``tests/test_layers.py`` has the list.
"""

import sys
from types import ModuleType

import lazy_loader

__version__ = "0.1.0"
_names_of_stub, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_BOTH = {"regions": "regions", "methods": "catalogue"}
"""Packages that have the name of a public function; the module of ``api`` that holds the function."""


class _PackageAndFunction(ModuleType):
    """A package that can be called: ``uss.regions(labels)``, and ``import uss_dagster.regions``."""

    def __call__(self, *args, **kwargs):
        return _function(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    def __setattr__(self, name, value):
        if name in _BOTH and isinstance(value, ModuleType):
            value.__class__ = _PackageAndFunction
        super().__setattr__(name, value)


def _function(name):
    from importlib import import_module

    return getattr(import_module(f"{__name__}.api.{_BOTH[name]}"), name)


def __getattr__(name):
    if name in _BOTH:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    return _names_of_stub(name)


sys.modules[__name__].__class__ = _Package
