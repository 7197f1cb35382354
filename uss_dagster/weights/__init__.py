"""Weights of pretrained networks as files.

Belongs here: finding a weight file on disk, in the hub's cache or on the hub, and the error messages when that fails. Does not
belong here: networks, and fitting weights to them (``backbones``).
"""
