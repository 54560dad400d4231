"""Which format a file or folder of weights is of, and reading any of them."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from perceiver.kinds import specs
from perceiver.weights import deepmind, files, huggingface, native
from perceiver.weights.native import Saved
from perceiver.weights.stored import Arrays

FORMATS = ("native", "deepmind", "huggingface")
ACCEPTED = (
    "accepted are a run's folder, an exported model (config.json and model.safetensors), a "
    "DeepMind "
    "pickle (.pickle, .pystate), a Hugging Face folder (config.json and model.safetensors or "
    "pytorch_model.bin), and the weights file in one of these"
)
_PICKLES = (".pickle", ".pkl", ".pystate")
_LOOKS = {  # the first bytes of files that are often mistaken
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a single NumPy array",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file with `git lfs pull`",
    b"<": "HTML or XML; the download failed",
}


def load(
    path: str | os.PathLike,
    *,
    spec: Mapping[str, Any] | specs.Spec | None = None,
    conv_kernel: str | None = None,
) -> Saved:
    """Reads a model with its weights from a file or folder of any format.

    Args:
      path: a run's folder, or what `detect` knows.
      spec: of the model, for files that do not say it themselves.
      conv_kernel: see `huggingface.read`.

    Raises:
      FileNotFoundError: there is no such file, or one that belongs to it is missing.
      ValueError: no known format, a broken or unsafe file, weights that do not fit the model, or
        an argument that the format has no use for.
    """
    path = resolve(path)
    fmt = detect(path)
    if conv_kernel is not None and fmt != "huggingface":
        raise ValueError(f"conv_kernel applies to Hugging Face files only; {path} is {fmt}")
    if fmt == "huggingface":
        return huggingface.read(path, spec=spec, conv_kernel=conv_kernel)
    if fmt == "deepmind":
        return deepmind.read(path, spec=spec)
    if spec is not None:
        raise ValueError(f"{path} already describes its model; omit spec")
    return native.load(_folder(path))


def save(folder: str | os.PathLike, saved: Saved, *, to: str = "native", **options: Any) -> None:
    """Writes a folder; `options` are those of the format, see `huggingface.save`.

    Raises:
      ValueError: an unknown format, or one that cannot hold this model.
    """
    if to == "huggingface":
        huggingface.save(folder, saved, **options)
    elif to == "native":
        native.save(folder, saved.model, saved.params, saved.state, saved.usage, **options)
    else:
        raise ValueError(f"to={to!r} is unknown; choose 'native' or 'huggingface'")


def arrays(path: str | os.PathLike) -> Arrays:
    """Returns the arrays of a file or folder, by the names they have there, unread."""
    path = resolve(path)
    fmt = detect(path)
    if fmt == "huggingface":
        return huggingface.arrays(path)
    return deepmind.arrays(path) if fmt == "deepmind" else native.arrays(_folder(path))


def resolve(path: str | os.PathLike) -> pathlib.Path:
    """Returns the exported model of a run's folder, a config.json's folder, or the path itself.

    Raises:
      FileNotFoundError: there is nothing, or a run that has exported no model.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {ACCEPTED}")
    if (path / "model").is_dir():
        return path / "model"
    if (path / "checkpoints").is_dir():
        raise FileNotFoundError(
            f"{path} is a run that has not exported its model yet: let the training command "
            f"finish, or export the last checkpoint with `python -m train.export {path}`"
        )
    return path.parent if path.name == "config.json" else path


def detect(path: str | os.PathLike) -> str:
    """Returns the format of a file or folder, one of FORMATS.

    Raises:
      FileNotFoundError: there is nothing, or nothing of weights.
      ValueError: it is something else; says what it seems to be.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {ACCEPTED}")
    if path.is_dir():
        return _detect_folder(path)
    if not path.is_file():
        raise ValueError(f"{path} is a device or a pipe, not a file; {ACCEPTED}")
    with path.open("rb") as file:
        head = file.read(32)
    if path.name.endswith(".index.json") or head.startswith(b"PK"):  # PyTorch's are zip archives
        return "huggingface"
    if head[8:9] == b"{":  # safetensors: the header's size, then JSON
        config = _read_config(path.parent)
        return "native" if native.is_native(config) else "huggingface"
    if path.suffix == ".bin":
        return "huggingface"
    if head.startswith(b"\x80") or path.suffix in _PICKLES:
        return "deepmind"
    looks = next((name for start, name in _LOOKS.items() if head.startswith(start)), None)
    seems = f"seems to be {looks}" if looks else f"starts with {head[:8]!r}"
    raise ValueError(f"{path} is not a weights file: it {seems}; {ACCEPTED}")


def _detect_folder(folder: pathlib.Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    config = _read_config(folder)
    if native.is_native(config):
        return "native"
    described = config if isinstance(config, dict) else {}
    kind = described.get("model_type")
    if kind not in (None, *huggingface.MODEL_TYPES):
        known = ", ".join(huggingface.MODEL_TYPES)
        raise ValueError(f"{folder} holds a model of type {kind!r}, not one of {known}; {ACCEPTED}")
    theirs = any(name in names for name in huggingface.WEIGHTS[1:])
    if kind or described.get("architectures") or theirs:
        return "huggingface"
    if config is None and "model.safetensors" not in names:
        held = f"it holds {', '.join(names[:5])}" if names else "it is empty"
        raise FileNotFoundError(
            f"{folder} holds no model: config.json is missing; {held}; {ACCEPTED}"
        )
    return "native"  # whose reader says what it lacks


def _folder(path: pathlib.Path) -> pathlib.Path:
    return path if path.is_dir() else path.parent


def _read_config(folder: pathlib.Path) -> Any:
    """The content of config.json; None if there is none, {} if it is broken."""
    try:
        return files.read_json(folder / "config.json")
    except FileNotFoundError:
        return None
    except ValueError:
        return {}  # the reader of the format says where
