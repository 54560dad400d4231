"""`python -m data.prepare text`: text of any kind -> stores that `data.source=text:NAME` reads.

Texts are read and written one document at a time, so that memory use does not grow with their size.
Unusable input is skipped, counted, and listed in report.csv.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data.prepare.text import inputs as text_inputs
from data.prepare.text import pieces, writing
from data.prepare.text.pieces import Fault, Reading
from data.prepare.text.writing import FaultReport, StoreWriter
from data.text import text_store

_SAY_EVERY = 30  # seconds

Log = Callable[[str], None]


def add_parser(commands: Any) -> None:
    """Adds the command to those of `python -m data.prepare`."""
    parser = commands.add_parser(
        "text",
        help="text files, JSON lines, tables, TFDS and Hugging Face data sets -> text stores",
        description=__doc__,
        epilog=text_inputs.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input", action="append", required=True, help="see below; may be repeated"
    )
    parser.add_argument(
        "--eval_input", action="append", default=[], help="separate input for validation"
    )
    parser.add_argument("--out", required=True, help="data_dir; the store is written to OUT/NAME")
    parser.add_argument("--name", required=True, help="of the store, as in data.source=text:NAME")
    parser.add_argument(
        "--field",
        default="text",
        help="the field of a record that holds the text, default: %(default)s",
    )
    parser.add_argument(
        "--documents",
        default="file",
        choices=pieces.DOCUMENTS,
        help="of plain text: a file, a line, or a block between blank lines; default: file, "
        "split into documents of 1 MiB",
    )
    parser.add_argument(
        "--eval_share",
        type=float,
        default=0.01,
        help="share of documents held out for validation; default: %(default)s; 0 with "
        "--eval_input",
    )
    parser.add_argument(
        "--invalid",
        default="replace",
        choices=writing.INVALID,
        help="how to handle documents that are not UTF-8, default: %(default)s",
    )
    parser.add_argument(
        "--max_line_bytes",
        type=int,
        default=Reading.max_line_bytes,
        help="longer lines are skipped, default: %(default)s",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first unusable input")
    parser.add_argument(
        "--tfds_dir", default="", help="default: that of TFDS, ~/tensorflow_datasets"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    reading = Reading(
        field=args.field,
        documents=args.documents,
        max_line_bytes=args.max_line_bytes,
        tfds_dir=args.tfds_dir,
    )
    prepare(
        args.input,
        args.out,
        args.name,
        reading,
        eval_inputs=args.eval_input,
        eval_share=args.eval_share,
        invalid=args.invalid,
        strict=args.strict,
    )


def prepare(
    inputs: Sequence[str],
    out: str | Path,
    name: str,
    reading: Reading | None = None,
    *,
    eval_inputs: Sequence[str] = (),
    eval_share: float = 0.01,
    invalid: str = "replace",
    strict: bool = False,
    log: Log = print,
) -> Path:
    """Returns the folder out/name with the stores `train` and `validation`, made or found there.

    Which documents are held out depends on their content alone: equal ones are on the same side.
    All is written under another name, which changes at the end: a killed preparation leaves
    nothing that could be taken for a store.

    Raises:
      FileNotFoundError: an input is not there.
      ValueError: a bad setting, stores of other settings, no document at all, or a fault that is
        to be an error.
    """
    reading = reading or Reading()
    _check(name, eval_inputs, eval_share, invalid)
    sources, eval_sources = text_inputs.find(inputs), text_inputs.find(eval_inputs)
    settings = {
        "inputs": list(inputs),
        "eval_inputs": list(eval_inputs),
        "files": len(sources) + len(eval_sources),
        "input_bytes": sum(map(text_inputs.size, sources + eval_sources)),
        "field": reading.field,
        "documents_of": reading.documents,
        "max_line_bytes": reading.max_line_bytes,
        "eval_share": 0.0 if eval_inputs else eval_share,
        "invalid": invalid,
    }
    folder = Path(out).expanduser() / name
    if folder.exists():
        _check_same(folder, settings)
        log(f"{folder} already exists")
        return folder
    partial = folder.with_name(f"incomplete_{name}")
    if partial.exists():
        shutil.rmtree(partial)
    stores = {split: StoreWriter(partial / split) for split in ("train", "validation")}
    reports = {split: FaultReport(strict=strict) for split in stores}
    say = _Progress(log)
    try:
        held_out = 0.0 if eval_inputs else eval_share
        for content in _documents(sources, reading, invalid, reports["train"]):
            stores["validation" if _is_held_out(content, held_out) else "train"].add(content)
            say(stores)
        for content in _documents(eval_sources, reading, invalid, reports["validation"]):
            stores["validation"].add(content)
            say(stores)
        if not any(store.documents for store in stores.values()):
            raise ValueError(f"no documents in {', '.join(inputs)}{reports['train'].first()}")
        for split, store in stores.items():
            store.close({"name": name, "split": split, **settings}, reports[split])
        partial.rename(folder)
    finally:
        for store in stores.values():
            store.abandon()
        if partial.exists():
            shutil.rmtree(partial)
    for split, store in stores.items():
        log(_line(folder / split, store, reports[split]))
    return folder


def _documents(
    sources: Sequence[str], reading: Reading, invalid: str, report: FaultReport
) -> Iterable[bytes]:
    for source in sources:
        for piece in text_inputs.read(source, reading):
            if isinstance(piece, Fault):
                report.add(piece)
            elif (content := writing.clean(piece, invalid, report)) is not None:
                yield content


def _is_held_out(content: bytes, share: float) -> bool:
    if not share:
        return False
    number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    return number < share * 2**64


def _line(folder: Path, store: StoreWriter, report: FaultReport) -> str:
    faults = ", ".join(f"{count:,} {kind}" for kind, count in report.totals().items())
    told = f"; faults: {faults}; see {folder / text_store.REPORT}" if faults else ""
    return f"{folder}: {store.documents:,} documents, {store.bytes:,} bytes{told}"


class _Progress:
    """Says now and then how far a preparation is."""

    def __init__(self, log: Log):
        self._log = log
        self._begin = self._last = time.monotonic()

    def __call__(self, stores: dict[str, StoreWriter]) -> None:
        now = time.monotonic()
        if now - self._last < _SAY_EVERY:
            return
        self._last = now
        size = sum(store.bytes for store in stores.values())
        documents = sum(store.documents for store in stores.values())
        rate = size / (now - self._begin) / 1e6
        self._log(f"{documents:,} documents, {size / 1e6:,.0f} MB, {rate:.0f} MB/s")


def _check(name: str, eval_inputs: Sequence[str], eval_share: float, invalid: str) -> None:
    if not name or set(name) & set("+/\\:") or name.startswith((".", "incomplete_")):
        raise ValueError(f"--name {name!r}: choose a plain name, without + / \\ or :")
    if not 0 <= eval_share < 1:
        raise ValueError(f"--eval_share must be in [0, 1), got {eval_share}")
    if invalid not in writing.INVALID:
        raise ValueError(f"--invalid {invalid!r}: choose one of {writing.INVALID}")


def _check_same(folder: Path, settings: dict[str, Any]) -> None:
    file = folder / "train" / text_store.SETTINGS
    there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    changed = [
        f"{key} {there.get(key)!r} there, {value!r} requested"
        for key, value in settings.items()
        if there.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"{folder} holds text prepared with other settings ({'; '.join(changed)}): remove that "
            "folder, or choose another --name"
        )
