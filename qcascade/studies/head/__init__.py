"""`qcascade study head`: the re-uploading head (Kim et al. 2025) on sentence embeddings, against classical classifiers.

`embeddings` (computed once), `runs` (what a run is), `inputs` (what a circuit loads), `variants` (the head with modules taken out),
`quantum`, `classical` and `sampled` (a run of each kind), `screening` (which runs, and what validation chooses), `tables`.
"""
