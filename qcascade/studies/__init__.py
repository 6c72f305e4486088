"""Studies: what a paper claims, tried on one's own data by one command (`qcascade study NAME`).

Shared by all: `texts` (data), `batches` and `training` (the loop), `records` (results that a killed study goes on from), `runs`
(many settings, in several processes), `statistics`, `tables`, `plots`. On top of everything else: nothing imports a study but its command.
"""
