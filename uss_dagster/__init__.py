"""Find out which unsupervised segmentation method to use, on your images.

Packages form layers, each importing only those below it: ``tests/test_layers.py`` has the list. Nothing is imported here, so that
``import uss_dagster`` costs nothing.
"""

__version__ = "0.1.0"
