"""Trains the subwords of a text store: `python -m data.prepare sentencepiece`.

Unigram pieces, as in Perceiver IO, section 4.1, with choices that keep every text whole: no
normalisation, blanks as they are, and bytes for whatever has no piece. A piece crosses no blank,
so that a word is whole pieces.
"""

import argparse
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from perceiver.text.tokenizer import OFFSET

VOCABULARY = 32_000  # Perceiver IO, section 4.1
SENTENCE_BYTES = 4_096  # longer lines are cut, else the trainer leaves them out
# Of the lines that it learns from, drawn evenly from all: about 200 MB of English, 10 GB of memory.
SENTENCES = 2_000_000


def add_parser(commands) -> None:
    """Adds the command to `python -m data.prepare`."""
    parser = commands.add_parser(
        "sentencepiece", help="train subwords on a text store; needs the extra `subwords`"
    )
    parser.add_argument("--input", required=True, help="a text store, or a text file")
    parser.add_argument("--out", required=True, help="the model file to write")
    parser.add_argument(
        "--vocabulary",
        type=int,
        default=VOCABULARY,
        help="number of tokens K, including six special ones",
    )
    parser.add_argument(
        "--sentences", type=int, default=SENTENCES, help="number of lines to train on"
    )
    parser.set_defaults(run=_run)


def train(
    documents: Iterable[np.ndarray | bytes],
    *,
    vocabulary: int = VOCABULARY,
    sentences: int = SENTENCES,
) -> bytes:
    """Returns a SentencePiece model file, trained on documents of UTF-8 bytes.

    Args:
      documents: of the training split alone.
      vocabulary: K, ids of the tokeniser in all: `model.vocabulary` of a spec.
      sentences: at most so many lines are learnt from, drawn evenly.

    Raises:
      ImportError: the library sentencepiece is not installed.
      ValueError: the vocabulary is too small for bytes, or too large for the text.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            "training subwords needs the extra `subwords`: pip install sentencepiece"
        ) from error
    least = OFFSET + 1 + 256  # the unknown piece, which byte fallback never gives, and bytes
    if vocabulary <= least:
        raise ValueError(
            f"--vocabulary {vocabulary} must be larger than {least}, the tokens that bytes need"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(documents),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary - OFFSET,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,  # indentation
            split_digits=True,  # else years and counts take thousands of pieces
            character_coverage=0.9995,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            unk_id=0,
            input_sentence_size=sentences,
            shuffle_input_sentence=True,
            max_sentence_length=2 * SENTENCE_BYTES,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"SentencePiece cannot train {vocabulary} subwords on this text: {error}. Use more "
            "text, or a smaller --vocabulary"
        ) from error
    return model.getvalue()


def _lines(documents: Iterable[np.ndarray | bytes]) -> Iterator[str]:
    """Yields lines without their ends, cut where they are too long; zero bytes are left out."""
    for document in documents:
        for line in bytes(document).split(b"\n"):
            for start in range(0, len(line), SENTENCE_BYTES):
                text = line[start : start + SENTENCE_BYTES].decode("utf-8", errors="ignore")
                text = text.replace("\0", "")
                if text.strip():
                    yield text


def _documents(source: Path) -> Iterator[np.ndarray | bytes]:
    if source.is_dir():
        from data.text import text_store  # what reads a store is needed for a store alone

        store = text_store.open_store(source)
        yield from (store.document(index) for index in range(len(store)))
    elif source.is_file():
        with source.open("rb") as file:
            yield from file
    else:
        raise FileNotFoundError(
            f"--input {source}: not a text store or file; write one with python -m data.prepare "
            "text"
        )


def _run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    documents = _documents(Path(args.input))
    model = train(documents, vocabulary=args.vocabulary, sentences=args.sentences)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(model)
    print(
        f"wrote {out} ({len(model):,} bytes): --config.data.tokenizer={out} "
        f"--config.model.vocabulary={args.vocabulary}"
    )
