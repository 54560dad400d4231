"""`python -m perceiver.weights convert|inspect|verify`: files of weights, without any code."""

import argparse
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from perceiver.kinds.released import MODELS
from perceiver.weights import files, formats, hub, inspection
from perceiver.weights.verify import Outcome, verify

_USAGE_ERROR = 64  # argparse's own 2 means something else here
_EPILOG = """\
SRC is a run's folder, an exported model, a DeepMind pickle (read without executing it), a Hugging
Face folder (config.json with model.safetensors or pytorch_model.bin), or the name of a released
model, which is downloaded once.

exit status:
  0   success; verify: the outputs match the recorded ones
  1   an error; verify: the weights are broken, do not fit, or give other outputs
  2   verify: they fit and are finite, but there are no recorded outputs to compare with
  64  an invalid command line

examples:
  python -m perceiver.weights inspect language_perceiver_io_bytes.pickle
  python -m perceiver.weights convert language_perceiver_io_bytes.pickle mlm --to native
  python -m perceiver.weights convert mlm mlm-huggingface --to huggingface
  python -m perceiver.weights verify mlm
"""


def read_spec(text: str) -> dict[str, Any]:
    """Returns the spec of a released model's name, or of a JSON file (a spec, or a config.json).

    Raises:
      ValueError: neither; or a file of something else.
    """
    if text in MODELS:
        return dict(MODELS[text])
    path = pathlib.Path(text)
    if not path.is_file():
        raise ValueError(f"--spec {text}: neither a file nor one of {', '.join(MODELS)}")
    try:
        content = files.read_json(path)
    except ValueError as error:
        raise ValueError(f"--spec {text}: not valid JSON: {error}") from error
    spec = content.get("model", content)
    if not isinstance(spec, dict) or "kind" not in spec:
        raise ValueError(
            f'--spec {text}: not a spec: it needs a "kind", see perceiver/kinds/released.py'
        )
    return spec


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str,
    *,
    spec: dict[str, Any] | None = None,
    conv_kernel: str | None = None,
) -> None:
    """Writes the model of `source` into the new folder `target`, which appears whole or not at all.

    Args:
      to: "native" or "huggingface".
      spec: of the model, for files that do not say it.
      conv_kernel: "hub" or "torch", see `huggingface.read`: of the source if that is Hugging
        Face's, else of the target.

    Raises:
      FileNotFoundError, ValueError: the source cannot be read, the target exists or cannot be
        written, or an option has no use.
    """
    target = pathlib.Path(target)
    if target.exists():
        raise FileExistsError(f"{target} already exists; remove it, or choose another name")
    of_source = formats.detect(formats.resolve(source)) == "huggingface"
    if conv_kernel and not of_source and to != "huggingface":
        raise ValueError("--conv-kernel applies to Hugging Face files only, and there is none here")
    saved = formats.load(source, spec=spec, conv_kernel=conv_kernel if of_source else None)
    options = {"conv_kernel": conv_kernel} if conv_kernel and not of_source else {}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = pathlib.Path(scratch) / target.name
        formats.save(folder, saved, to=to, **options)
        folder.rename(target)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(_USAGE_ERROR, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m perceiver.weights",
        description="Convert, inspect and verify files of weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("convert", "write a model in another format"),
        ("inspect", "show what a file contains, without reading array values"),
        ("verify", "compare a model's outputs with recorded ones"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument("source", metavar="SRC", help="file, folder or released name")
        if name == "convert":
            command.add_argument("target", metavar="DST", help="folder to create")
            command.add_argument("--to", required=True, choices=("native", "huggingface"))
        if name == "inspect":
            command.add_argument("--arrays", action="store_true", help="list all arrays")
            command.add_argument("--json", action="store_true", help="print one JSON object")
        else:
            command.add_argument(
                "--spec", metavar="NAME|FILE", help="a released model's name, or a JSON file"
            )
            command.add_argument(
                "--conv-kernel",
                choices=("hub", "torch"),
                help="layout of the 7x7 convolution in the Hugging Face file (default for reading: "
                "as its config.json says, else hub; for writing: torch)",
            )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        args.source = hub.locate(args.source)
        return _COMMANDS[args.command](args)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _convert(args: argparse.Namespace) -> int:
    spec = read_spec(args.spec) if args.spec else None
    convert(args.source, args.target, args.to, spec=spec, conv_kernel=args.conv_kernel)
    print(inspection.render(inspection.inspect(args.target)))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    inspected = inspection.inspect(args.source)
    if args.json:
        print(json.dumps(inspected, indent=2))
    else:
        print(inspection.render(inspected, list_arrays=args.arrays))
    return 0


def _verify(args: argparse.Namespace) -> int:
    spec = read_spec(args.spec) if args.spec else None
    report = verify(formats.load(args.source, spec=spec, conv_kernel=args.conv_kernel))
    print("\n".join([f"{args.source}: {_SAYS[report.outcome]}", *report.lines]))
    return int(report.outcome)


_COMMANDS = {"convert": _convert, "inspect": _inspect, "verify": _verify}
_SAYS = {
    Outcome.VERIFIED: "verified",
    Outcome.WRONG: "WRONG",
    Outcome.UNKNOWN: "complete and finite, not verified",
}

if __name__ == "__main__":
    sys.exit(main())
