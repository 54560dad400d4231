"""PyTorch's own files of state dicts (`.bin`), where PyTorch is installed."""

import importlib
import os
import pathlib
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np

from perceiver.weights.stored import Arrays, Stored


def read(path: str | os.PathLike) -> Arrays:
    """Returns the arrays of a file; they are mapped and read when asked for.

    PyTorch opens it with `weights_only`: tensors and containers, no code.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: PyTorch is not installed, or refuses the file, or it is no state dict.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ValueError(
            f"{path} is PyTorch's own format, and PyTorch is not installed: `pip install torch`, "
            "or take the same model as model.safetensors"
        ) from error
    try:
        # Files of PyTorch before 1.6 are no archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: PyTorch refuses it as weights: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(x, torch.Tensor) for x in content.values()
    ):
        raise ValueError(f"{path} is not a state dict, a mapping from names to tensors")
    return {name: _stored(torch, tensor) for name, tensor in content.items()}


def _stored(torch, tensor) -> Stored:
    if tensor.dtype == torch.bfloat16:  # which numpy lacks
        dtype = np.dtype(jnp.bfloat16)
        bits = tensor.view(torch.int16)
        return Stored(tuple(tensor.shape), dtype, lambda: bits.numpy().view(dtype).copy())
    dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return Stored(tuple(tensor.shape), dtype, lambda: tensor.numpy().copy())
