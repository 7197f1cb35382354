"""Ground truth that a person makes by clicking regions of several methods: the code of ``uss annotate``.

Belongs here: the regions offered at a pixel, the document with its autosave, which image comes next, what the labels say of the ranking, and
the server of the page. Does not belong here: the page's own files (``report/assets``), finding regions (``methods``), and measuring them
(``metrics``).
"""
