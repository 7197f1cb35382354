"""What dataset adapters share: the public support package for a new adapter.

``class_trees`` reads class trees from YAML, ``label_maps`` and ``pairs`` pictures with label maps, ``coco_json`` COCO's annotation files,
``files`` finds files in the mirror.

Belongs here: what several datasets need. Does not belong here: one dataset's own rules.
"""
