"""The direction of imports, read from the source without importing anything.

    perceiver <- data <- train        configs -> perceiver.kinds.released, perceiver.kinds.specs

The folders of a package are its layers: a module imports from its own or from those before it.
Imports inside functions count too: one that only works when postponed is a cycle in disguise.
"""

import ast
import dataclasses
import graphlib
import pathlib
import re
import sys

import pytest

pytestmark = pytest.mark.core

ROOT = pathlib.Path(__file__).resolve().parents[2]

# package -> the project's packages that it may import besides itself
PACKAGES = {
    "perceiver": set(),
    "data": {"perceiver"},
    "train": {"perceiver", "data"},
    "configs": {"perceiver"},
}

# package -> what else it may import; all of it is in the requirements of setup.py
THIRD_PARTY = {
    "perceiver": {"PIL", "haiku", "jax", "jaxlib", "numpy", "safetensors"},
    # No jax: worker processes import these modules, and must not claim the accelerator.
    "data": {
        "PIL",
        "absl",
        "array_record",
        "cv2",
        "grain",
        "matplotlib",
        "ml_collections",
        "numpy",
        "scipy",
        "sklearn",
        "tensorflow",
        "tensorflow_datasets",
    },
    "train": {
        "PIL",
        "absl",
        "etils",
        "haiku",
        "jax",
        "matplotlib",
        "ml_collections",
        "numpy",
        "optax",
        "orbax",
        "scipy",
        "sklearn",
        "tensorboardX",
        "threadpoolctl",
    },
    "configs": {"ml_collections"},
}

# package -> what only some of it needs: extras, imported where they are used
OPTIONAL = {
    "data": {"apache_beam", "datasets", "pyarrow", "sentencepiece"},
    "perceiver": {"av", "huggingface_hub", "sentencepiece", "sklearn", "tokenizers", "torch"},
}

# import name -> distribution, where they differ by more than punctuation
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "haiku": "dm-haiku",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}

# Sizes, and the names and defaults of a model's fields.
CONFIGS_KNOW = ("perceiver.kinds.released", "perceiver.kinds.specs")

# Each tuple is one layer, lowest first; a name stands for a folder, or for a file beside them.
LAYERS = {
    "perceiver": [
        ("compile_cache", "media", "nn", "text"),
        ("attention",),
        ("cross_attention",),
        ("model",),
        ("inputs", "outputs"),
        ("kinds",),
        ("summary",),
        ("weights",),
        ("pretrained",),
        ("__init__",),
        ("describe", "embed", "predict"),
        ("search",),
    ],
    "data": [
        ("batches", "dataset", "memory", "prepared", "shard", "subset", "transforms"),
        ("images",),
        ("clips", "text"),
        ("labelled_text",),
        ("__init__", "prepare"),
    ],
    "train": [
        ("__init__", "devices", "objective", "optim"),
        ("checkpoint", "guard", "report"),
        ("curves", "resolve", "step", "tasks"),
        ("experiment",),
        ("run",),
        ("command", "export"),
        ("evaluate",),
        ("loop", "pictures", "probe"),
        ("__main__", "sweep"),
    ],
}

MOST_MODULES = 16  # of a folder: more than that nobody takes in at a glance


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that one statement imports."""

    module: str  # the importing module: "perceiver.model.encoder"
    target: str  # what it imports: "perceiver.attention.blocks" or "jax.numpy"
    line: int
    postponed: bool  # within a function, so not run when the module is loaded

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def find_modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every module of the four packages: dotted name -> file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def read_imports(module: str, path: pathlib.Path, modules: set[str]) -> list[Import]:
    """All imports of one file; `from a import b` is of `a.b` if that is a module, else of `a`."""
    found = []

    def visit(node: ast.AST, postponed: bool) -> None:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import; write the full name")
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            targets = sorted(names & modules) + ([node.module] if names - modules else [])
        else:
            targets = []
        found.extend(Import(module, target, node.lineno, postponed) for target in targets)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, postponed or inside)

    visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)), postponed=False)
    return found


def all_imports(root: pathlib.Path) -> list[Import]:
    modules = find_modules(root)
    names = set(modules)
    return [x for name, path in modules.items() for x in read_imports(name, path, names)]


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def wrong_packages(imports: list[Import]) -> list[str]:
    """Imports against the direction between the packages, or of what a package does not require."""
    wrong = []
    for x in imports:
        package, target = x.module.split(".")[0], x.target.split(".")[0]
        if target == package or target in sys.stdlib_module_names:
            continue
        if target in PACKAGES or target == "tests":
            allowed = PACKAGES[package]
        else:
            allowed = THIRD_PARTY[package]
            if x.postponed:
                allowed = allowed | OPTIONAL.get(package, set())
        if target not in allowed:
            wrong.append(f"{x}; {package} may import {sorted(allowed)}")
    return wrong


def special_cases(imports: list[Import]) -> list[str]:
    """Imports that the package tables allow and a narrower rule forbids."""
    wrong = []
    for x in imports:
        package, target = x.module.split(".")[0], x.target.split(".")[0]
        if target == "tensorflow" and not x.postponed:
            wrong.append(f"{x} when it is loaded; only preparing data needs it, inside a function")
        if (package, target) == ("perceiver", "PIL") and x.module != "perceiver.media.images":
            wrong.append(f"{x}; pictures are opened by perceiver.media.images only")
        if (package, target) == ("configs", "perceiver") and x.target not in CONFIGS_KNOW:
            wrong.append(f"{x}; configurations know {CONFIGS_KNOW} only")
        if x.module == "perceiver.kinds.released":
            wrong.append(f"{x}; perceiver.kinds.released is plain data and imports nothing")
        sides = {".".join(name.split(".")[:2]) for name in (x.module, x.target)}
        if sides == {"perceiver.inputs", "perceiver.outputs"}:
            wrong.append(f"{x}; inputs and outputs do not know each other")
    return wrong


def rank(module: str) -> int:
    """The number of a module's layer within its package; raises for a module that has none."""
    package, name = (*module.split("."), "__init__")[:2]
    for number, layer in enumerate(LAYERS[package]):
        if name in layer:
            return number
    raise ValueError(f"{module} has no layer; put {name!r} into LAYERS[{package!r}]")


def wrong_layers(imports: list[Import]) -> list[str]:
    """Imports from a later layer of the same package."""
    wrong = []
    for x in imports:
        package = x.module.split(".")[0]
        if package in LAYERS and is_within(x.target, package) and rank(x.target) > rank(x.module):
            wrong.append(f"{x}, which is in a later layer")
    return wrong


def find_cycle(imports: list[Import], modules: set[str]) -> list[str]:
    """One cycle among the modules as a list of names, empty if there is none."""
    graph = {module: set() for module in modules}
    for x in imports:
        if x.target in modules:
            graph[x.module].add(x.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_packages_import_in_one_direction():
    assert wrong_packages(all_imports(ROOT)) == []


def test_special_cases_hold():
    assert special_cases(all_imports(ROOT)) == []


def test_setup_requires_what_may_be_imported():
    source = (ROOT / "setup.py").read_text(encoding="utf-8")
    required = set(re.findall(r'"([\w.-]+)(?:\[\w+\])?>=', source))
    tables = (*THIRD_PARTY.values(), *OPTIONAL.values())
    allowed = {DISTRIBUTIONS.get(name, name) for names in tables for name in names}
    assert {name.replace("_", "-") for name in allowed} - required == set()


def test_layers_hold():
    imports = all_imports(ROOT)
    assert sorted({x.module.split(".")[0] for x in imports} - set(LAYERS)) == ["configs"]
    assert wrong_layers(imports) == []


def test_every_module_has_a_layer():
    for module in find_modules(ROOT):
        if module.split(".")[0] in LAYERS:
            rank(module)  # raises where there is none


def test_no_cycles():
    assert find_cycle(all_imports(ROOT), set(find_modules(ROOT))) == []


def test_folders_stay_small_and_say_what_they_hold():
    for package in LAYERS:
        for folder in (ROOT / package, *(ROOT / package).rglob("*/")):
            modules = list(folder.glob("*.py"))
            if modules:
                assert len(modules) <= MOST_MODULES, folder
                source = (folder / "__init__.py").read_text(encoding="utf-8")
                assert ast.get_docstring(ast.parse(source)), folder
