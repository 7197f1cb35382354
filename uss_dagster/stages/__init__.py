"""The stages of the pipeline: one module and one class of ``planning.cells.Cell`` each, found by folder.

Belongs here: which cells a stage has, what it reads and writes, and how it calls the library. Does not belong here: algorithms, and
anything a person would call without DVC.
"""
