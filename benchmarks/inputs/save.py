"""Save the model in MLflow's format: python save.py MODEL REQUIREMENTS FOLDER."""

import sys
from pathlib import Path

import mlflow.sklearn
import skops.io

model, requirements, folder = sys.argv[1:]
lines = Path(requirements).read_text().splitlines()
pins = [line.split()[0] for line in lines if line[:1].isalpha()]
mlflow.sklearn.save_model(skops.io.load(model), folder, pip_requirements=pins)
