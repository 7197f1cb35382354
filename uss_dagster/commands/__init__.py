"""The ``uss`` commands, one file each: its options, and the call of the library. ``cli.py`` only puts them together.

Belongs here: a function (or a ``typer.Typer`` with commands below it) in a file of its name, and what several commands print or parse
alike. A command file imports only light modules at its top. Does not belong here: algorithms, and what DVC runs (``stages``).
"""
