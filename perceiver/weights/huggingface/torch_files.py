"""PyTorch's own files of state dicts (`.bin`), where PyTorch is installed."""

import os
import pathlib
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np

from perceiver.weights.stored import Arrays, StoredArray

_LENT = 64 << 20  # bytes that are read through one mapping of a file


def read(path: str | os.PathLike) -> Arrays:
    """Returns the arrays of a file, none of them read yet.

    PyTorch opens it with `weights_only`: tensors and containers, no code.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: PyTorch is not installed, or refuses the file, or it is no state dict.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is PyTorch's own format, and PyTorch is not installed: `pip install torch`, "
            "or use the same model as model.safetensors"
        ) from error
    file = _File(torch, path)
    return {name: file.stored(name) for name in file.tensors}


class _File:
    """A mapped file, mapped again every now and then: pages that were read stay in memory."""

    def __init__(self, torch: Any, path: pathlib.Path):
        self.torch, self.path = torch, path
        # Files of PyTorch before 1.6 are no archives, and cannot be mapped.
        self.mapped = zipfile.is_zipfile(path)
        if self.mapped:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > path.stat().st_size:  # PyTorch packs nothing
                raise ValueError(
                    f"{path}: not a weights file: the archive unpacks to {size:,} bytes"
                )
        self.tensors = self._open()
        self.lent = 0

    def _open(self) -> dict[str, Any]:
        try:
            content = self.torch.load(
                self.path, map_location="cpu", weights_only=True, mmap=self.mapped
            )
        except Exception as error:  # whatever a broken file leads PyTorch's reader to
            raise ValueError(f"{self.path}: PyTorch rejects it as weights: {error}") from error
        tensors = isinstance(content, dict) and all(
            isinstance(x, self.torch.Tensor) for x in content.values()
        )
        if not tensors:
            raise ValueError(f"{self.path} is not a state dict, a mapping from names to tensors")
        return content

    def _check(self, name: str, tensor: Any) -> None:
        """Raises ValueError for a tensor that NumPy has no array for."""
        torch = self.torch
        numbers = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool)
        numbers += (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.dtype not in numbers:
            raise ValueError(
                f"{self.path}: {name!r} is a tensor of {tensor.dtype}, {tensor.layout}, on "
                f"{tensor.device}: save dense numbers of one of {', '.join(map(str, numbers))}"
            )

    def stored(self, name: str) -> StoredArray:
        tensor = self.tensors[name]
        self._check(name, tensor)
        brain = tensor.dtype == self.torch.bfloat16  # numpy has no such dtype of its own
        dtype = self.torch.empty(0, dtype=tensor.dtype).numpy().dtype if not brain else jnp.bfloat16

        def read() -> np.ndarray:
            if self.mapped and self.lent > _LENT:
                self.tensors, self.lent = {}, 0  # unmaps the file
                self.tensors = self._open()
            tensor = self.tensors[name]
            self.lent += tensor.nbytes
            if brain:
                return tensor.view(self.torch.int16).numpy().view(dtype).copy()
            return tensor.numpy().copy()

        return StoredArray(tuple(tensor.shape), np.dtype(dtype), read)
