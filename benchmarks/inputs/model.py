"""Train a model of about 5 MB: python model.py FILE."""

import sys

import numpy as np
import pandas as pd
import skops.io
from sklearn.neighbors import KNeighborsClassifier

rng = np.random.default_rng(0)
rows = pd.DataFrame(rng.normal(size=(60_000, 10)), columns=[f"x{n}" for n in range(10)])
model = KNeighborsClassifier(algorithm="brute").fit(rows, rows["x0"] > 0)
skops.io.dump(model, sys.argv[1])
