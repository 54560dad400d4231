"""Packaging: the wheel ships the library `perceiver` only.

`train/`, `data/` and `configs/` are run from a checkout with `python -m`; such generic names do
not belong in site-packages. What they need is in the extra `train`.
"""

import ast
import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent

TRAIN = [
    "absl-py>=2.1",
    "array-record>=0.8.1",
    "etils[epath]>=1.12",
    "grain>=0.2.18",
    "matplotlib>=3.9",
    "ml-collections>=1.1",
    "opencv-python-headless>=4.14",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12",
    "scikit-learn>=1.5",
    "scipy>=1.15",
    "tensorboardX>=2.6.2",
    "tensorflow-datasets>=4.9.10",
    "threadpoolctl>=3.5",
]
# Only TFDS's `download_and_prepare` needs TensorFlow; reading what it prepared does not. The
# CPU build is a third of the download and cannot claim the GPU that JAX trains on. macOS and
# Windows have one build for all. TFDS's builders import importlib_resources undeclared.
PREPARE = [
    "importlib-resources>=6.4",
    "tensorflow-cpu>=2.19; sys_platform == 'linux'",
    "tensorflow>=2.19; sys_platform != 'linux'",
]
# The parts that execute and pair notebooks; any Jupyter front end opens them.
NOTEBOOKS = ["ipykernel>=6.29", "jupytext>=1.16", "nbclient>=0.10", "nbstripout>=0.8"]
# Nearest sentences and clusters of embeddings.
SEARCH = ["scikit-learn>=1.5"]
# Reading and writing video files with sound; fetching Hugging Face's copies of released weights.
MEDIA = ["av>=14.0"]
HUB = ["huggingface-hub>=0.34"]
# The SentencePiece models of Perceiver IO, section 4.1: training them and using them; the
# tokenisers of other models, such as BERT's.
SUBWORDS = ["sentencepiece>=0.2", "tokenizers>=0.20"]
# Preparing more clips than one machine can; large, and pins older versions of others.
BEAM = ["apache-beam>=2.60"]
# Preparing text: Parquet and .zst (TFDS brings PyArrow along); data sets of Hugging Face's hub.
TEXT = ["pyarrow>=17.0"]
DATASETS = ["datasets>=3.0"]
# What `python -m benchmarks.training_step` and the tests of Hugging Face's format compare with.
PARITY = ["torch>=2.8", "transformers>=4.57"]
# The site of docs/: `make docs`. Pinned by requirements/docs.txt, beside the other pinned sets.
DOCS = ["mkdocs-material>=9.6"]
# setuptools builds the wheel that the packaging tests look into, without a download.
TEST = ["hypothesis>=6.100", "pytest>=8.0", "pytest-xdist>=3.6", "ruff>=0.12", "setuptools>=77"]


def read_version() -> str:
    """Reads `__version__` from the library's source without importing it (and so JAX)."""
    path = ROOT / "perceiver" / "__init__.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return ast.literal_eval(node.value)
    raise ValueError(f'{path} has no line `__version__ = "x.y.z"`; add one')


setuptools.setup(
    name="perceiver",
    version=read_version(),
    description="Perceiver and Perceiver IO in JAX and Haiku, with training pipelines",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["perceiver", "perceiver.*"]),
    package_data={"perceiver": ["py.typed"], "perceiver.media.labels": ["*.txt"]},
    install_requires=[
        "dm-haiku>=0.0.17",
        "jax>=0.10",
        "jaxlib>=0.10",
        "numpy>=2.0",
        "pillow>=11.0",
        "safetensors>=0.5",
    ],
    extras_require={
        "beam": BEAM,
        "cuda": ["jax[cuda13]>=0.10"],
        "datasets": DATASETS,
        "docs": DOCS,
        "hub": HUB,
        "media": MEDIA,
        "notebooks": NOTEBOOKS,
        "parity": PARITY,
        "prepare": MEDIA + PREPARE + TRAIN,
        "search": SEARCH,
        "subwords": SUBWORDS,
        "test": MEDIA + SUBWORDS + TEST + TEXT,
        "text": TEXT,
        "tpu": ["jax[tpu]>=0.10"],
        "train": TRAIN,
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
