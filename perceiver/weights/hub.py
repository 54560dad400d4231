"""The released weights: where they are, and how they are fetched.

DeepMind's six files, and Hugging Face's copies of them. Two of the copies compute something else in
Hugging Face's own code (`perceiver.weights.huggingface` says what); their weights are the same.
"""

import contextlib
import os
import pathlib
import re
import urllib.request
from typing import NamedTuple

URL = "https://storage.googleapis.com/perceiver_io/"
DOCS = "https://huggingface.co/"


class ReleasedFile(NamedTuple):
    """One released model."""

    spec: str  # its name in `released.MODELS`
    file: str  # DeepMind's, below URL
    repository: str  # Hugging Face's


MODELS = (
    ReleasedFile(
        "masked-lm-bytes", "language_perceiver_io_bytes.pickle", "deepmind/language-perceiver"
    ),
    ReleasedFile(
        "imagenet-learned",
        "imagenet_learned_position_encoding.pystate",
        "deepmind/vision-perceiver-learned",
    ),
    ReleasedFile(
        "imagenet-fourier",
        "imagenet_fourier_position_encoding.pystate",
        "deepmind/vision-perceiver-fourier",
    ),
    ReleasedFile(
        "imagenet-conv", "imagenet_conv_preprocessing.pystate", "deepmind/vision-perceiver-conv"
    ),
    ReleasedFile(
        "optical-flow", "optical_flow_checkpoint.pystate", "deepmind/optical-flow-perceiver"
    ),
    ReleasedFile(
        "video-autoencoder",
        "video_autoencoding_checkpoint.pystate",
        "deepmind/multimodal-perceiver",
    ),
)


def find(name: str) -> ReleasedFile | None:
    """Returns the released model of a name: a spec's, DeepMind's file, or a repository."""
    for model in MODELS:
        if name in model:
            return model
    return None


def known() -> str:
    """Returns a table of all names that can be loaded, for messages and docs."""
    return "\n".join(f"  {m.spec:18} {m.repository:34} {URL}{m.file}" for m in MODELS)


def locate(source: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a source: itself if it exists, else what a released model's name fetches.

    Raises:
      FileNotFoundError: it is neither; lists the names.
      ImportError, ConnectionError: see `fetch`.
    """
    path = _at_home(source)
    if path.exists():
        return path
    if find(str(source)) is None:
        name, remedy = os.fspath(source), ""
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            remedy = (
                f"If it is a repository of the hub, download it first, and load the folder: "
                f"hf download {name} --local-dir {name.partition('/')[2]}\n"
            )
        raise FileNotFoundError(
            f"{name!r} is neither a file nor a folder, nor the name of a released model. {remedy}"
            f"Released models are\n{known()}"
        )
    return fetch(str(source))


def fetch(name: str) -> pathlib.Path:
    """Returns the local copy of a released model's file or repository, downloading it once.

    A repository's name is fetched by `huggingface_hub` into its own cache; the other names stand
    for DeepMind's file, kept in `$PERCEIVER_CACHE` (default `~/.cache/perceiver`).

    Raises:
      ValueError: an unknown name.
      ImportError: `huggingface_hub` is not installed.
      ConnectionError: there is no network; says where the file can be had.
    """
    model = find(name)
    if model is None:
        raise ValueError(f"{name!r} is not a released model; known models:\n{known()}")
    return _from_hub(model) if name == model.repository else _from_url(model)


def _from_hub(model: ReleasedFile) -> pathlib.Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"downloading {model.repository} needs huggingface_hub, which is missing: `pip install "
            f"huggingface-hub`, or load DeepMind's own file by the name {model.spec!r}"
        ) from error
    try:
        files = huggingface_hub.HfApi().list_repo_files(model.repository)
        weights = "*.safetensors" if "model.safetensors" in files else "pytorch_model.bin"
        folder = huggingface_hub.snapshot_download(
            model.repository, allow_patterns=["*.json", weights]
        )
    except Exception as error:  # its own, requests' and httpx's, by version
        cached = _cached_snapshot(huggingface_hub, model)
        if cached is not None:
            return cached
        raise ConnectionError(
            f"cannot download {DOCS}{model.repository} ({type(error).__name__}: {error}); on a "
            "machine "
            f"with network access, download {URL}{model.file}, and load that file by its path"
        ) from error
    return pathlib.Path(folder)


def _cached_snapshot(huggingface_hub, model: ReleasedFile) -> pathlib.Path | None:
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(model.repository, local_files_only=True)
        )
    except Exception:  # nothing is cached: again, its errors differ by version
        return None


def _at_home(path: str | os.PathLike) -> pathlib.Path:
    """Returns a path with ~ filled in, where there is a home."""
    with contextlib.suppress(RuntimeError):
        return pathlib.Path(path).expanduser()
    return pathlib.Path(path)


def _from_url(model: ReleasedFile) -> pathlib.Path:
    folder = _at_home(os.environ.get("PERCEIVER_CACHE", "~/.cache/perceiver"))
    path = folder / model.file
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConnectionError(
            f"cannot keep {model.file} in {folder} ({error}); set PERCEIVER_CACHE to a folder that "
            f"can be written, or download {URL}{model.file} and load that file by its path"
        ) from error
    partial = folder / f"{model.file}.partial-{os.getpid()}"
    try:
        with urllib.request.urlopen(URL + model.file, timeout=60) as reply, partial.open("wb") as f:
            expected = int(reply.headers.get("Content-Length") or 0)
            while block := reply.read(2**20):
                f.write(block)
        if expected and partial.stat().st_size != expected:
            raise OSError(f"{partial.stat().st_size} of {expected} bytes arrived")
        partial.replace(path)
    except OSError as error:  # urllib's errors are OSErrors
        raise ConnectionError(
            f"cannot download {URL}{model.file} ({error}); download it on a machine with network "
            f"access and load it by its path, or put it into {folder}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path
