"""Checkpoints that other code bases released, turned into runs of this project.

A room of its own, beside training: like training it ends in a run's folder, and networks need not know of foreign
names, files or pickles. Only `segkd.steps` imports it.
"""
