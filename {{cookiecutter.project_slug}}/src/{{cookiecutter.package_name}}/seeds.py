"""The one source of randomness: whatever draws numbers gets its seed from `experiment.toml`."""

from __future__ import annotations

import random

import numpy as np

__all__ = ["set_all"]


def set_all(seed: int) -> None:
    """Seed the generators that Python and NumPy share between all code of a process.

    `model.fit` gets the seed too, and hands it to the framework's own generator.

    Parameters
    ----------
    seed : int
        From the settings, between 0 and 2**32 - 1.
    """
    random.seed(seed)
    # Libraries that take no generator of their own draw from this one.
    np.random.seed(seed)  # noqa: NPY002
