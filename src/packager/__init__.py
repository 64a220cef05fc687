"""Seal a trained model and its locked dependencies into a reproducible container image.

The street, from the bottom up: `packager.errors`, `packager.project`, `packager.store`,
`packager.lock`, `packager.layers`, `packager.image`, `packager.outputs`,
`packager.build`, `packager.smoke`, `packager.cli`.  Each module imports only modules
below it.
"""

__version__ = "0.1.0"
