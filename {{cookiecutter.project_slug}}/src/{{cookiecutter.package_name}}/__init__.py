"""The code of an experiment, from a registered data file to a sealed model.

`settings` reads `experiment.toml`; `registry`, `dataset` and `data` give the rows; `model` fits;
`export` writes the file and `exported` reads it; `evaluate`, `report`, `log` and `reproduce` say
what came of it.  `train` does it all.  The image runs `predict`, which needs `features` and
`exported` and nothing else of this package.
"""
