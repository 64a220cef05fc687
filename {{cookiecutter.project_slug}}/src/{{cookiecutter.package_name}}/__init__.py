"""Predict the species of a penguin from its culmen, its flipper and its sex.

`data` reads the measurements, `train` fits a model and writes it with its metrics and its
recorded examples, `predict` loads it again; `evaluate`, `examples` and `export` help.
"""
