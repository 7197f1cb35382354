"""DVC stages as Dagster assets: project, translator, resource, invocation, after the pattern of dagster-dbt.

Belongs here: reading a DVC project, naming its stages as assets and partitions, running stages and reporting what
happened, asking DVC what is out of step. Does not belong here: segmentation, and any name or rule of one project
(those go into ``meta.dagster`` of a stage, or into a subclass of ``DvcTranslator``).

The names are listed in ``__init__.pyi`` and imported when first used: a program that only runs DVC does not import Dagster.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
