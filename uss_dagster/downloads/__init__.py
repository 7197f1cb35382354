"""Fetching files from the network and unpacking archives safely.

Belongs here: downloads with checksums and resuming, safe extraction. Does not belong here: what a dataset consists of (``datasets``).
"""
