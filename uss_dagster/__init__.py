"""Find out which unsupervised segmentation method to use, on your images.

The package is a house of floors, each importing only what is below it: see ``tests/test_floors.py``
for the list. Nothing is imported here, so that ``import uss_dagster`` costs nothing.
"""

__version__ = "0.1.0"
