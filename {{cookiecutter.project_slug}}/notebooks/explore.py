# %% [markdown]
# # What the model does
#
# This page loads the exported model as the image does, compares it with the predictions that
# were recorded when it was trained, and asks how each input moves its answers.  Run `make train`
# first.  `explore.ipynb` and `explore.py` are one notebook: edit either, `make format` follows.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from {{ cookiecutter.package_name }} import predict
from {{ cookiecutter.package_name }}.exported import SUFFIX

MODELS = Path("../models")

predictor = predict.load(MODELS / f"model.{SUFFIX}")
config = predictor.config
metrics = json.loads((MODELS / "metrics.json").read_text("utf-8"))
recorded = json.loads((MODELS / "examples.json").read_text("utf-8"))

# %% [markdown]
# ## How good it is
#
# Measured on the rows that were held out, and the thresholds that the experiment set beforehand.

# %%
pd.Series(metrics["held_out"], name="held out").to_frame()

# %%
pd.DataFrame(metrics["thresholds"])

# %% [markdown]
# ## What it says to the recorded examples

# %%
outputs = predictor.predict(recorded["inputs"])
examples = pd.DataFrame(recorded["inputs"]).assign(predicted=outputs[config.target])
examples.head(10)

# %% [markdown]
# The image is delivered only if it repeats the recorded answers; so must the file here.

# %%
answer = "probability" if config.classes else config.target
np.testing.assert_allclose(outputs[answer], recorded["outputs"][answer], **recorded["tolerance"])

# %% [markdown]
# How sure is it of a class, or how are its values spread?

# %%
sure = np.max(outputs[answer], axis=1) if config.classes else np.array(outputs[answer])
figure, axes = plt.subplots()
axes.hist(sure, bins=20)
axes.set_xlabel("probability of the predicted class" if config.classes else config.target)
axes.set_ylabel("examples")
plt.show()

# %% [markdown]
# ## How each input moves its answers
#
# One input takes a range of values in every example while the others stay; the line is the mean
# answer.  It shows what the model does, not what causes what.


# %%
def response(name: str, values: np.ndarray) -> np.ndarray:
    """Return the mean answer over all examples for each value of one input."""
    changed = [{**recorded["inputs"], name: [value] * len(examples)} for value in values]
    return np.array([np.mean(predictor.predict(rows)[answer], axis=0) for rows in changed])


for name in config.numeric:
    column = examples[name].astype(float)
    values = np.linspace(column.min(), column.max(), 30)
    figure, axes = plt.subplots()
    lines = axes.plot(values, response(name, values))
    axes.set_xlabel(name)
    axes.set_ylabel(f"mean {answer}")
    if config.classes:
        axes.legend(lines, config.classes)
    plt.show()
