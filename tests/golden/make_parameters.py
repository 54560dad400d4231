"""Writes the parameter tree of every released model to `parameters/<name>.json`.

    python tests/golden/make_parameters.py

A path in these files is what exported models and the import of released weights rely on: look at
the difference before you commit it.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(__file__).parent / "parameters"
SHORT = {"float32": "f32", "int32": "i32"}


def signature(tree) -> dict[str, str]:
    """{module: {name: array}} -> {"module/name": "f32[2,3]"}, sorted by path."""
    return {
        f"{module}/{name}": f"{SHORT[str(x.dtype)]}[{','.join(map(str, x.shape))}]"
        for module, leaves in sorted(tree.items())
        for name, x in sorted(leaves.items())
    }


def parameters(spec) -> dict[str, str]:
    """Returns the signature of a spec's parameters; nothing is allocated."""
    import jax

    import perceiver

    model = perceiver.build(spec)
    return signature(jax.eval_shape(model.init, jax.random.key(0))[0])


def render(signature: dict[str, str]) -> str:
    """Returns the text of a golden file."""
    return json.dumps(signature, indent=2) + "\n"


def main() -> None:
    """Writes one file per released model and removes those of models that are gone."""
    from perceiver.kinds.released import MODELS

    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        if path.stem not in MODELS:
            path.unlink()
    for name, spec in MODELS.items():
        (FOLDER / f"{name}.json").write_text(render(parameters(spec)))
        print(FOLDER / f"{name}.json")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
