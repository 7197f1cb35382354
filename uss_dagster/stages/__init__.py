"""The small programs that dvc.yaml runs: read artefacts, call the library, write one gated artefact.

Belongs here: one file a stage, each a few dozen lines. Does not belong here: algorithms, and anything a person
would call without DVC.
"""
