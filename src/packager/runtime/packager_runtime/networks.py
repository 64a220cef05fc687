"""PyTorch's networks: a program of torch.export, or a module of the project and safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .builtin import BuiltIn, filled, module
from .facts import InputError, Tensor

__all__ = ["Network", "exported", "filled_module"]

_DTYPES = {
    "BOOL": "bool",
    "FP32": "float32",
    "FP64": "float64",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_DATATYPES = {f"torch.{dtype}": datatype for datatype, dtype in _DTYPES.items()}


class Network(BuiltIn):
    """A network that takes tensors, rows first.

    Parameters
    ----------
    run : callable
        The network; it gets the inputs in their order.
    inputs : sequence of Tensor
        What it takes.
    outputs : sequence of str
        Names for what it gives, in its order; empty if nobody wrote them down.
    named : bool
        Whether the inputs' names are the network's own.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        inputs: Sequence[Tensor],
        outputs: Sequence[str],
        *,
        named: bool,
    ) -> None:
        super().__init__(inputs, named=named)
        self._run, self._outputs = run, outputs
        self._torch = module("torch", Path("the model"))

    def predict(self, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Predict, without keeping what training would need."""
        torch = self._torch
        given = [
            torch.tensor(filled(column, float("nan")), dtype=getattr(torch, _DTYPES[one.datatype]))
            for one, column in zip(self.inputs, self.columns(inputs), strict=True)
        ]
        with torch.inference_mode():
            found = self._run(*given)
        if isinstance(found, Mapping):
            return dict(found)
        several = [found] if torch.is_tensor(found) else list(found)
        names = self._outputs or [f"output_{at}" for at in range(len(several))]
        return dict(zip(names, several, strict=True))


def exported(path: Path, outputs: Sequence[Tensor]) -> Network:
    """Load what `torch.export.save` wrote.

    Parameters
    ----------
    path : Path
        The file.
    outputs : sequence of Tensor
        The recorded ones, for their names.

    Returns
    -------
    Network
        With the program's own names, datatypes and sizes.

    Raises
    ------
    InputError
        When the program takes something else than tensors of any number of rows.
    """
    program = module("torch", path).export.load(path)
    values = {
        node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"
    }
    inputs = [_described(name, values[name], path) for name in program.graph_signature.user_inputs]
    return Network(program.module(), inputs, [one.name for one in outputs], named=True)


def _described(name: str, value: Any, path: Path) -> Tensor:
    datatype = _DATATYPES.get(str(getattr(value, "dtype", "")))
    if datatype is None:
        raise InputError(f"{path.name} takes {name!r}, which is no tensor of a known datatype")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    if shape[:1] != (-1,):
        raise InputError(
            f"{path.name} takes {name!r} of {list(shape)}: export it with a dynamic first size, "
            "the rows"
        )
    return Tensor(name, datatype, shape, nullable=datatype.startswith("FP"))


def filled_module(
    network: Any, path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> Network:
    """Load weights into a module of the project.

    Parameters
    ----------
    network : torch.nn.Module
        With weights of any value.
    path : Path
        A safetensors file that has each of them, by name.
    inputs, outputs : sequence of Tensor
        The recorded ones: a module says nothing of what it takes and gives.

    Returns
    -------
    Network
        Ready to predict.

    Raises
    ------
    InputError
        When there is no recorded signature, or the weights are another module's.
    """
    if not inputs:
        raise InputError(
            f"{path.name}: a module does not say what it takes: record examples with a signature"
        )
    weights = module("safetensors.torch", path).load_file(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as wrong:
        told = " ".join(str(wrong).split())
        raise InputError(f"{path.name}: its weights are those of another module: {told}") from None
    kinds = {_DATATYPES.get(str(weight.dtype), "") for weight in weights.values()}
    floats = "FP64" if "FP64" in kinds else "FP32"
    taken = [
        replace(one, datatype=floats) if one.datatype.startswith("FP") else one for one in inputs
    ]
    return Network(network.eval(), taken, [one.name for one in outputs], named=False)
