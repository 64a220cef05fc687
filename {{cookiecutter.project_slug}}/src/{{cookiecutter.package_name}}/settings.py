"""`experiment.toml`, checked: every choice of the experiment, read once into `Settings`."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .features import Config
from .model import Parameters

__all__ = ["ROOT", "Settings", "SettingsError", "Threshold", "read"]

ROOT = Path(__file__).parents[2]
"""The repository: training and testing happen in a checkout, installed in place."""

FILE = "experiment.toml"

HIGHER_IS_BETTER = {
    "classification": {
        "accuracy": True,
        "balanced_accuracy": True,
        "macro_f1": True,
        "log_loss": False,
    },
    "regression": {"r2": True, "mean_absolute_error": False, "root_mean_squared_error": False},
}
"""The metrics of each kind of task, and which way each of them is better."""

OTHER_THRESHOLDS = {"latency_ms", "size_mb", "duplicate_rows"}
"""What a threshold can hold besides a metric: the time that one row takes, the model's file, and
rows of the training part that stand in the held-out part too."""


class SettingsError(ValueError):
    """The settings cannot be used; the message names the file and the key."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class _Data(_Table):
    name: str
    examples: str = ""
    examples_license: str = ""


class _Task(_Table):
    kind: Literal["classification", "regression"]
    target: str
    classes: tuple[str, ...] = ()


class _Features(_Table):
    numeric: tuple[str, ...] = ()
    categorical: dict[str, tuple[str, ...]] = {}


class _Split(_Table):
    held_out: Annotated[float, Field(gt=0, le=0.5)]
    groups: tuple[str, ...] = ()
    folds: Annotated[int, Field(ge=2)]
    repeats: Annotated[int, Field(ge=1)]


class Threshold(_Table):
    """What a metric has to be.

    Attributes
    ----------
    min : float or None
        At least this.
    max : float or None
        At most this; one of the two is given.
    """

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Threshold:
        if (self.min is None) == (self.max is None):
            raise ValueError("give min or max")
        return self

    def holds(self, value: float) -> bool:
        """Say whether a value keeps to the threshold.

        Parameters
        ----------
        value : float
            NaN never keeps to one.

        Returns
        -------
        bool
            True if it does.
        """
        if self.min is not None:
            return value >= self.min
        return self.max is not None and value <= self.max


class _Reference(_Table):
    """What somebody else reached on the same task."""

    value: float
    source: str


class _Evaluation(_Table):
    optimise: str
    by: tuple[str, ...] = ()
    thresholds: dict[str, Threshold] = {}
    published: _Reference | None = None
    human: _Reference | None = None


class Settings(_Table):
    """The whole of `experiment.toml`; the comments there say what each key means.

    Attributes
    ----------
    seed : int
        Of everything that draws numbers.
    data, task, features, split, evaluation : table
        As in the file.
    model : Parameters
        The table ``[model]``, as `model.py` wants it.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: _Data
    task: _Task
    features: _Features
    split: _Split
    evaluation: _Evaluation
    model: Parameters

    @property
    def config(self) -> Config:
        """What the exported model has to know of all this.

        Returns
        -------
        Config
            Inputs and output.
        """
        return Config(
            task=self.task.kind,
            target=self.task.target,
            classes=self.task.classes,
            numeric=self.features.numeric,
            categorical=self.features.categorical,
        )

    @property
    def digest(self) -> str:
        """The digest of the settings' values, whatever their layout.

        Returns
        -------
        str
            ``"sha256:"`` and 64 hexadecimal digits.
        """
        return _digest(self.model_dump(mode="json"))

    @property
    def fitted_with(self) -> str:
        """The digest of what decides which rows a model learned from, and how.

        Returns
        -------
        str
            Of all but ``[evaluation]``.
        """
        return _digest(self.model_dump(mode="json", exclude={"evaluation"}))

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        metrics = HIGHER_IS_BETTER[self.task.kind]
        unknown = {self.evaluation.optimise, *self.evaluation.thresholds} - metrics.keys()
        unknown -= OTHER_THRESHOLDS - {self.evaluation.optimise}
        if unknown:
            known = ", ".join([*metrics, *sorted(OTHER_THRESHOLDS)])
            raise ValueError(
                f"evaluation: {', '.join(sorted(unknown))} is no metric of a {self.task.kind}; "
                f"there are {known}"
            )
        if (self.task.kind == "classification") != (len(self.task.classes) > 1):
            raise ValueError("task.classes: a classification has at least two, a regression none")
        if bool(self.data.examples) != bool(self.data.examples_license):
            raise ValueError("data: examples and examples_license go together")
        if len(set(self.task.classes)) != len(self.task.classes):
            raise ValueError("task.classes: name none twice")
        parts = 1 / self.split.held_out
        if abs(self.split.held_out - 1 / round(parts)) > 0.01:
            raise ValueError(
                f"split.held_out: rows are set aside in whole parts, 1/2, 1/3, 1/4 and so on; "
                f"the nearest to {self.split.held_out:g} is {1 / round(parts):.3g}"
            )
        names = self.config.inputs
        if not names or len({*names, self.task.target}) != len(names) + 1:
            raise ValueError("features: name at least one column, none twice, and not the target")
        return self


def read(profile: str = "", root: Path = ROOT) -> Settings:
    """Read the settings.

    Parameters
    ----------
    profile : str
        A table of ``[profiles]`` that is merged over the others: tests use ``"quick"``.
    root : Path
        The folder that holds `experiment.toml`.

    Returns
    -------
    Settings
        Checked.

    Raises
    ------
    SettingsError
        When the file is missing, is no TOML, or says what cannot be.
    """
    path = root / FILE
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    profiles = document.pop("profiles", {})
    if profile and profile not in profiles:
        raise SettingsError(f"{path}: there is no [profiles.{profile}]")
    try:
        return Settings.model_validate(_merged(document, profiles.get(profile, {})))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "no such key is known"
        raise SettingsError(f"{path}: {key + ': ' if key else ''}{message}") from None


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another, table by table."""
    merged = dict(below)
    for key, value in above.items():
        deeper = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _merged(below[key], value) if deeper else value
    return merged
