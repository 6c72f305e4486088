"""The cascaded study: a classical encoder against its hybrid on labelled texts, after Nie (2026).

`encoder` is the model, `settings` what a run is, `run` trains one, `lengths` and `noise` are the further measurements; `groups`,
`accuracy_tables`, `device_tables` and `figures` make of the results files what `report` writes.
"""
