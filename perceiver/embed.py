"""Embeds the lines of a text file: row i of the .npy file is the embedding of line i.

python -m perceiver.embed MODEL FILE --out=x.npy [--normalise] [--batch_size 64] [--max_length N]

  MODEL   a run's folder, an exported model or a released name, of a kind that reads texts
  FILE    UTF-8, one text per line; - is stdin

Lines are sorted by their number of tokens, so that batches need little padding and few different
lengths; padding is masked and does not affect the results. An empty line gets a row of zeros, which
is similar to nothing. Lines longer than the model's maximum, or than --max_length tokens, are
truncated. The file is written atomically, and only one batch of embeddings is in memory at a time.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from perceiver import compile_cache
from perceiver.pretrained import embedding
from perceiver.pretrained.embedding import EncodedTexts
from perceiver.pretrained.loading import load
from perceiver.pretrained.pretrained import Pretrained
from perceiver.text import lengths
from perceiver.weights import files

_TELL_EVERY = 30  # seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingStats:
    """What embedding a file took."""

    lines: int
    channels: int
    empty: int  # lines whose row is zero
    cut: int  # lines that lost their end
    seconds: float
    padding: float  # tokens read for each real one
    padding_in_order: float  # the same if lines were not sorted

    def __str__(self) -> str:
        told = [
            f"{self.lines:,} lines of {self.channels} channels in {self.seconds:.1f} s, "
            f"{self.lines / self.seconds:,.0f} lines/s, including compilation",
            f"  {self.padding:.2f} padded tokens per real token; in the file's order "
            f"{self.padding_in_order:.2f}: sorting saved "
            f"{1 - self.padding / self.padding_in_order:.0%}",
        ]
        told += [f"  {self.empty:,} empty: rows of zeros"] if self.empty else []
        told += [f"  {self.cut:,} too long: truncated"] if self.cut else []
        return "\n".join(told)


def read_lines(file: str) -> list[str]:
    """Returns the lines of a UTF-8 file without their ends; "-" is stdin.

    Line feeds (perhaps after a carriage return) end a line and nothing else does, as `wc` has it.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is no UTF-8, or no line at all.
    """
    lines = []
    with contextlib.ExitStack() as stack:
        stdin = file == "-"
        stream = sys.stdin.buffer if stdin else stack.enter_context(pathlib.Path(file).open("rb"))
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{file}, line {number}: byte {error.start + 1} is not valid UTF-8; repair the "
                    "line, or convert the file (iconv -f ENCODING -t UTF-8)"
                ) from error
            lines.append(text.removesuffix("\n").removesuffix("\r"))
    if not lines:
        raise ValueError(f"{file} has no lines")
    return lines


def write(
    path: pathlib.Path, model: Pretrained, given: EncodedTexts, *, normalise: bool = False
) -> EmbeddingStats:
    """Embeds texts into a .npy file, float32 [n, E].

    Raises:
      OSError: the file cannot be written. One that was there before stays as it was.
    """
    began = told = time.perf_counter()
    done, shape = 0, (0, 0)
    with files.replacing(path) as file:
        for places, rows in embedding.batches(model, given):
            if not done:
                shape = (len(given.texts), rows.shape[1])
                start = _write_header(file, shape)
            rows = embedding.unit(rows) if normalise else rows
            for place, row in zip(places, rows.astype("<f4"), strict=True):
                file.seek(start + int(place) * row.nbytes)
                file.write(row.tobytes())
            done += len(places)
            if time.perf_counter() - told > _TELL_EVERY:
                told = time.perf_counter()
                print(f"{done:,} of {len(given.full):,} lines", file=sys.stderr)
    return _report(model, given, shape, time.perf_counter() - began)


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> int:
    """Makes a file of zeros, and returns where its rows begin.

    Rows are then written as into any file, not through `np.memmap`: there a full disk kills the
    process.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    file.truncate(start + 4 * shape[0] * shape[1])
    return start


def _report(
    model: Pretrained, given: EncodedTexts, shape: tuple[int, int], seconds: float
) -> EmbeddingStats:
    sizes, size = given.sizes[given.full], model.batch_size
    in_order = lengths.in_order(np.arange(len(sizes)), size)
    real = int(sizes.sum())
    return EmbeddingStats(
        lines=shape[0],
        channels=shape[1],
        empty=shape[0] - len(sizes),
        cut=given.cut,
        seconds=seconds,
        padding=lengths.cost(sizes, lengths.batches(sizes, size), given.reads) / real,
        padding_in_order=lengths.cost(sizes, in_order, given.reads) / real,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Embeds the lines of a file."""
    parser = argparse.ArgumentParser(
        prog="python -m perceiver.embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="run, model folder, weights file or released name")
    parser.add_argument("file", help="texts, one per line; - is stdin")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the .npy file to write")
    parser.add_argument("--normalise", action="store_true", help="scale each row to length 1")
    parser.add_argument("--batch_size", type=int, default=64, help="lines per batch (default 64)")
    parser.add_argument("--max_length", type=int, help="truncate lines to this many tokens")
    options = parser.parse_args(arguments)
    if options.out.suffix != ".npy" or not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: name a .npy file in a folder that exists")
    compile_cache.enable_if_possible()
    try:
        texts = read_lines(options.file)
        model = load(options.model, batch_size=options.batch_size)
        given = embedding.fit(model, texts, options.max_length)
        print(f"{options.out}: {write(options.out, model, given, normalise=options.normalise)}")
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
