"""`python -m perceiver.describe NAME|FOLDER`: what a model consists of and what it costs."""

import argparse
import difflib
import itertools
import json
import pathlib
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from perceiver.attention import APPROXIMATE
from perceiver.kinds import specs
from perceiver.kinds.released import MODELS
from perceiver.summary import summarize
from perceiver.weights import files

WIDTH = 100  # columns of the report

_NAMES = "\n  ".join(textwrap.wrap(", ".join(MODELS), 88, break_on_hyphens=False))
_DESCRIPTION = """\
Print what a model consists of (inputs, byte array, latents, parameters) and what it costs
(forward FLOPs, memory). No arrays are allocated and no weights are read."""
_EPILOG = f"""\
names:
  {_NAMES}

examples:
  python -m perceiver.describe imagenet-fourier
  python -m perceiver.describe masked-lm-bytes --batch 64 --compile
  python -m perceiver.describe perceiver-imagenet --depth 9       # every module separately
  python -m perceiver.describe runs/digits                        # a training run
  python -m perceiver.describe runs/digits/model --json           # an exported model
"""


def load_spec(target: str) -> tuple[str, specs.Spec]:
    """Returns (heading, spec) of a released model's name, or of a folder with a config.json.

    Raises:
      ValueError: an unknown name, or a config.json that describes no model.
      FileNotFoundError: a folder without config.json.
    """
    if target in MODELS:
        return target, specs.parse(MODELS[target])
    folder = pathlib.Path(target)
    if not folder.is_dir():
        near = difflib.get_close_matches(target, MODELS, n=3)
        raise ValueError(
            f"{target!r} is neither a model nor a folder"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
            + f"\nmodels:\n  {_NAMES}"
            + "\nfolders:\n  a training run's WORKDIR, or an exported model such as WORKDIR/model"
        )
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; give a training run's WORKDIR, or an exported model such as "
            "WORKDIR/model"
        )
    try:
        config = files.read_json(file)
    except ValueError as error:
        raise ValueError(f"{error}; export the model again") from error
    if not isinstance(config.get("model"), dict):
        raise ValueError(
            f'{file} does not describe a model: it has no "model" object at its top level'
        )
    try:
        return str(folder), specs.parse(config["model"])
    except (TypeError, ValueError) as error:
        raise ValueError(f'{file}, "model": {error}') from error


def render(heading: str, summary: dict[str, Any]) -> str:
    """Returns the report of a summary, at most `WIDTH` columns wide."""
    sections = (_overview, _parameters, _flops, _memory)
    title = f"{heading}  ({summary['spec']['kind']})"
    return "\n\n".join([title, *("\n".join(section(summary)) for section in sections)])


def _overview(summary: dict[str, Any]) -> Iterable[str]:
    spec, array, latents = summary["spec"], summary["byte_array"], summary["latents"]
    for name, x in summary["inputs"].items():
        yield _field("input", f"{name} {_array(x)}")
    yield _field("byte array", f"[M, C] = [{array['size']}, {array['channels']}]")
    for segment in array["segments"]:
        yield from _wrapped("", _segment(segment))
    if latents is None:
        yield from _wrapped("network", specs.parse(spec).network)
        yield _field("latents", "none: no cross-attends, and no attention maps")
    else:
        yield _field("latents", f"[N, D] = [{latents['size']}, {latents['channels']}]")
        yield _field("stages", _stages(spec, len(summary["stages"])))
    if len(summary["stages"]) > 1:
        yield _field(
            "sharing", f"cross-attends use weights {', '.join(map(str, spec['encoders']))}"
        )
        yield _field("", f"processors    use weights {', '.join(map(str, spec['processors']))}")
    outputs = summary["outputs"]
    for name, x in ({"": outputs} if "shape" in outputs else outputs).items():
        yield _field("output", f"{name} {_array(x)}".strip())
    for names, path in _by_path(summary["paths"]):
        yield from _wrapped("path", f"{names}: {path}")
    choices = (("operands", "operands"), ("attention kernel", "kernel"), ("remat", "remat"))
    told = [f"{name} {spec[field]}" for name, field in choices if field in spec]
    if spec.get("kernel") in APPROXIMATE:
        told.append(f"{spec['kernel_features']} random directions")
    yield from _wrapped("compute", ", ".join([spec["dtype"], *told]))


def _parameters(summary: dict[str, Any]) -> Iterable[str]:
    modules, total = summary["parameters"]["modules"], summary["parameters"]["total"]
    width = max(len(module["path"]) for module in modules)
    yield f"PARAMETERS  {total:,}"
    notes = {}
    for module in modules:
        path = module["path"]
        first = re.sub(r"_\d+/", "/", path, count=1)
        notes[path] = note = _note(module)
        if path != first and note == notes.get(first):
            note = f"as {first}"
        start = f"  {path:<{width}}  {module['parameters']:>11,}  "
        glued = re.sub(r" (?=\d+x|\()", "~", note)  # keeps a name and its shape on one line
        for line in textwrap.wrap(glued, WIDTH - len(start)) or [""]:
            yield (start + line.replace("~", " ")).rstrip()
            start = " " * len(start)
    if summary["parameters"]["state"]:
        yield f"  {'state (averages, not trained)':<{width}}  {summary['parameters']['state']:>11,}"


def _flops(summary: dict[str, Any]) -> Iterable[str]:
    rows = summary["flops"]["rows"]
    whole = sum(row["flops"] for row in rows)
    scale, unit = (1e9, "GFLOP") if whole >= 1e9 else (1e6, "MFLOP")

    def number(count: int) -> str:
        return f"{count / scale:>10,.3f}"

    title = f"FORWARD PASS  {number(summary['flops']['per_example']).strip()} {unit} per example"
    once = sum(row["flops"] for row in rows if row["shared"])
    yield title + (f", and {number(once).strip()} once per batch" if once else "")
    yield f"  {'':<34}{'each':>10}  {'times':>5}  {unit:>10}  {'share':>6}"
    for part, group in itertools.groupby(rows, key=lambda row: row["part"]):
        group = list(group)
        cost = sum(row["flops"] for row in group)
        yield f"  {part:<34}{'':>17}  {number(cost)}  {cost / whole:>6.1%}"
        for row in group:
            name = row["operation"] + (" (once per batch)" if row["shared"] else "")
            yield f"    {name:<32}{number(row['once'])}  {row['times']:>5}  {number(row['flops'])}"
    if summary["batch_size"] > 1:
        batch = f"a batch of {summary['batch_size']}"
        yield f"  {batch:<34}{'':>17}  {number(summary['flops']['batch'])}"


def _memory(summary: dict[str, Any]) -> Iterable[str]:
    memory, batch = summary["memory"], summary["batch_size"]
    training = memory["parameters"] + memory["gradients"] + memory["optimizer_state"]
    rows = [
        ("parameters, float32", memory["parameters"]),
        ("gradients", memory["gradients"]),
        ("LAMB or Adam state, two moments", memory["optimizer_state"]),
        ("total while training", training),
    ]
    for name, key in (
        ("byte array", "byte_array"),
        ("logits of one dense cross-attend", "cross_attention_logits"),
        ("logits of one dense self-attend", "self_attention_logits"),
    ):
        if f"{key}_per_example" not in memory:
            continue
        rows.append((f"{name}, per example", memory[f"{key}_per_example"]))
        if batch > 1:
            rows.append((f"{name}, batch of {batch}", memory[f"{key}_batch"]))
    if summary["compiled"]:
        where = f"compiled forward pass ({summary['compiled']['platform']}), batch of {batch}"
        for name in ("argument", "output", "temp"):
            rows.append((f"{where}: {name}", summary["compiled"][f"{name}_bytes"]))
    width = max(len(name) for name, _ in rows)
    yield "MEMORY"
    yield from (f"  {name:<{width}}  {size / 2**20:>11,.1f} MiB" for name, size in rows)


def _field(name: str, value: str) -> str:
    return f"  {name:<12}{value}"


def _by_path(paths: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Yields (names, path); neighbours of the same path are told once: "stage 2 to stage 8"."""
    for path, group in itertools.groupby(paths, key=paths.get):
        first, *others = group
        yield f"{first} to {others[-1]}" if others else first, path


def _wrapped(name: str, value: str) -> Iterable[str]:
    first, *rest = textwrap.wrap(value, WIDTH - 14)
    yield _field(name, first)
    yield from (_field("", line) for line in rest)


def _array(x: dict[str, Any]) -> str:
    return f"{x['dtype']} {x['shape']}"


def _segment(segment: dict[str, Any]) -> str:
    grid = " x ".join(map(str, segment["dims"]))
    text = f"{segment['name']}: {grid} elements of {segment['content_channels']} content"
    if segment["positions"]:
        text += f" + {segment['position_channels']} position channels ({segment['positions']})"
        text += f" + {segment['constant_channels']} shared" if segment["constant_channels"] else ""
    else:
        text += " channels"
    return text + (", masked" if segment["masked"] else "")


def _stages(spec: dict[str, Any], stages: int) -> str:
    layers, heads = f"{spec['layers']} self-attends", _heads(spec["self_heads"])
    if spec["blocks"] > 1:
        layers = f"{spec['blocks']} x {layers}"
        heads += ", blocks share weights"
    return f"{stages} x [cross-attend ({_heads(spec['cross_heads'])}), {layers} ({heads})]"


def _heads(heads: int) -> str:
    return f"{heads} head" + "s" * (heads > 1)


def _note(module: dict[str, Any]) -> str:
    """What is inside: the depth of a stack, and the matrices (of one layer) by their parents."""
    parents = {}
    for path, shape in module["matrices"].items():
        *rest, name = path.split("/")[:-1] or [""]  # without the leaf's own name
        matrix = f"{name} {'x'.join(map(str, shape))}".strip()
        parents.setdefault(rest[-1] if rest else "", []).append(matrix)
    parts = [f"{name} ({', '.join(matrices)})".lstrip() for name, matrices in parents.items()]
    note = ", ".join(parts if len(parents) > 1 else itertools.chain(*parents.values()))
    return f"{module['layers']} layers: {note}".rstrip(": ") if module["layers"] else note


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m perceiver.describe",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="NAME|FOLDER", help="a model's name, or a folder with its config.json"
    )
    for flag, default, text in (
        ("batch", 1, "examples in a batch, for memory and outputs (default: 1)"),
        ("depth", 3, "components of a module path to sum parameters by (default: 3)"),
    ):
        parser.add_argument(
            f"--{flag}", type=_positive, default=default, metavar=flag[0].upper(), help=text
        )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile the forward pass and show the memory XLA plans for it (can take "
        "minutes)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    try:
        heading, spec = load_spec(args.target)
        summary = summarize(
            spec, batch_size=args.batch, depth=args.depth, compile_forward=args.compile
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.json:
        print(json.dumps({"name": heading, **summary}, indent=2))
    else:
        print(render(heading, summary))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
