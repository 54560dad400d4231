"""What a file or folder of weights holds, without reading any of the values."""

import collections
import math
import os
import pathlib
from typing import Any

import jax

from perceiver.kinds import specs
from perceiver.kinds.models import build
from perceiver.kinds.released import MODELS
from perceiver.weights import deepmind, files, formats
from perceiver.weights.huggingface.config import spec_of
from perceiver.weights.huggingface.export import meaning
from perceiver.weights.stored import Arrays


def inspect(path: str | os.PathLike) -> dict[str, Any]:
    """Returns format, model, counts and arrays, ready for JSON.

    "model" is None where the file does not tell what it is; then "unknown" says why.

    Raises:
      FileNotFoundError, ValueError: there are no weights, or their file is broken or unsafe.
    """
    place = formats.resolve(path)
    arrays = formats.arrays(place)
    summary: dict[str, Any] = {"path": str(path), "format": formats.detect(place)}
    try:
        summary |= {"model": _model(_spec(place, arrays)), "unknown": None}
    except (ValueError, FileNotFoundError) as error:
        summary |= {"model": None, "unknown": str(error)}
    dtypes = collections.Counter(str(x.dtype) for x in arrays.values())
    return summary | {
        "values": sum(math.prod(x.shape) for x in arrays.values()),
        "bytes": sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays.values()),
        "dtypes": dict(sorted(dtypes.items())),
        "arrays": {
            name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in arrays.items()
        },
    }


def _spec(place: pathlib.Path, arrays: Arrays) -> specs.Spec:
    """The model that a file says it is, or that its arrays are."""
    kind = formats.detect(place)
    if kind == "deepmind":
        return specs.parse(deepmind.spec_of(arrays, place))
    config = (place if place.is_dir() else place.parent) / "config.json"
    try:
        content = files.read_json(config)
        sizes = content["model"] if kind == "native" else dict(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config}: broken file: {error!r}") from error
    if kind == "huggingface":
        sizes = spec_of(sizes, {name: x.shape for name, x in arrays.items()})
    return specs.parse(sizes)


def _model(spec: specs.Spec) -> dict[str, Any]:
    model = build(spec)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    names = [name for name, sizes in MODELS.items() if meaning(specs.parse(sizes)) == meaning(spec)]
    return {
        "kind": spec.kind,
        "released": names[0] if names else None,
        "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        "state": sum(math.prod(x.shape) for x in jax.tree.leaves(state)),
        "inputs": {
            name: {"shape": [None, *x.shape[1:]], "dtype": str(x.dtype)}
            for name, x in model.example_inputs(1).items()
        },
        "spec": spec.to_dict(),
    }


def render(summary: dict[str, Any], *, list_arrays: bool = False) -> str:
    """Returns the report of `inspect`; arrays are listed if the model is unknown, or on demand."""
    model = summary["model"]
    rows = [("format", summary["format"])]
    if model is None:
        rows.append(("model", f"unknown: {summary['unknown']}"))
    else:
        spec = model["spec"]
        released = f", the released {model['released']}" if model["released"] else ""
        rows.append(("model", f"{spec['kind']}{released}"))
        rows += [
            (
                "input" if i == 0 else "",
                f"{name} {x['dtype']} [B, {', '.join(map(str, x['shape'][1:]))}]",
            )
            for i, (name, x) in enumerate(model["inputs"].items())
        ]
        if not specs.parse(spec).has_latents:
            rows.append(("network", specs.parse(spec).network))
        else:
            rows.append(("latents", f"{spec['latents']} x {spec['latent_channels']}"))
            blocks = f", {spec['blocks']} times" if spec["blocks"] > 1 else ""
            rows.append(
                ("layers", f"{spec['layers']} self-attends of {spec['self_heads']} heads{blocks}")
            )
        state = f", and {model['state']:,} of state" if model["state"] else ""
        rows.append(("parameters", f"{model['parameters']:,}{state}"))
    dtypes = ", ".join(f"{count} {name}" for name, count in summary["dtypes"].items())
    rows.append(("arrays", f"{len(summary['arrays'])} ({dtypes}), {summary['values']:,} values"))
    rows.append(("size", f"{summary['bytes'] / 2**20:,.1f} MiB"))
    lines = [summary["path"], *(f"  {name:<12}{value}" for name, value in rows)]
    if model is None or list_arrays:
        arrays = {_printable(name): x for name, x in summary["arrays"].items()}
        width = max(map(len, arrays), default=0)
        lines += [f"  {name:<{width}}  {x['dtype']} {x['shape']}" for name, x in arrays.items()]
    return "\n".join(lines)


def _printable(name: str) -> str:
    """Returns a name from a file without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
