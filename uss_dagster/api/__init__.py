"""The Python interface: what ``import uss_dagster as uss`` offers.

Belongs here: functions that turn what a person has (arrays, pictures, files) into the types of the package, call it, and give back what a
person expects. Does not belong here: any computation; the commands call the same functions below this package.

The public names are listed in ``uss_dagster/__init__.pyi`` and imported when first used.
"""
