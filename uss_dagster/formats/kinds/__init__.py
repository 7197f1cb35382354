"""One module a format: ``SPEC``, ``write(masks, folder)`` and ``read(path)``. A file here, or an entry point ``uss_dagster.formats``, is enough."""
