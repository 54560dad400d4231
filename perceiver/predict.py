"""Runs a trained or released model on files or texts; the kind of model decides what it does.

python -m perceiver.predict MODEL INPUT [INPUT ...]

  MODEL   a run's folder, an exported model, a DeepMind or Hugging Face file, or a released name
          (imagenet-fourier, deepmind/language-perceiver, ...)

  kind of MODEL       INPUT                            result
  image_*             image files                      labels
  masked_lm*          texts with [MASK:9]; - is stdin  texts, filled in
  text_classifier     texts, pairs with [SEP]; - is    labels, or a number; --task picks a task
                      stdin
  sentence_encoder    pairs of texts with [SEP]; -     their similarity; with --embed, the texts'
                      is stdin                         embeddings
  clip_classifier     video or audio files             labels over time, see --hop
  optical_flow        two frames                       --out flow.png, flow.flo or flow.npy
  video_autoencoder   one video file                   labels; --out reconstruction.mp4

With --embed, images and texts give the average of their latents instead, written to --out FILE.npy
or, with --json, printed as a list of numbers.

Of many images or texts some are read at a time, and results are printed as they come. Those that
cannot be read are named on standard error and counted; the exit code is then 1.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from perceiver import compile_cache
from perceiver.kinds import specs
from perceiver.media import images, video_files
from perceiver.media.flow_picture import flow_picture
from perceiver.pretrained.loading import load
from perceiver.pretrained.pretrained import Pretrained
from perceiver.pretrained.use import text_classes
from perceiver.pretrained.use.clips import Tagged

_AS = {"picture": "black frames", "sound": "silence"}

Shown = tuple[str, dict[str, Any]]  # a line to read, the same for --json


def _each(
    inputs: Sequence[Any],
    options: argparse.Namespace,
    use: Callable[[Sequence[Any]], Sequence[Any]],
) -> Iterator[tuple[int, Any]]:
    """Yields (place, result) of the inputs that can be used, `use` taking some at a time.

    What cannot be used is named, and counted in `options.broken`; alone, or where all are, it is an
    error.
    """
    first = None
    for start in range(0, len(inputs), options.batch_size):
        some = inputs[start : start + options.batch_size]
        try:
            results = list(use(some))
        except (OSError, ValueError):  # one by one, so that the others have results
            for place, item in enumerate(some, start):
                try:
                    (result,) = use([item])
                except (OSError, ValueError) as error:
                    first = first or error
                    options.broken += 1
                    if len(inputs) > 1:
                        print(f"input {place} is broken: {error}", file=sys.stderr, flush=True)
                else:
                    yield place, result
        else:
            yield from enumerate(results, start)
    if options.broken == len(inputs):
        raise ValueError(str(first))


def _classify(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    def use(files):
        return model.classify(files, top_k=options.top)

    for place, labels in _each(options.inputs, options, use):
        file = options.inputs[place]
        yield f"{file}: {_line(labels)}", {"file": file, "labels": _rows(labels)}


def _texts(options: argparse.Namespace) -> list[str]:
    return [sys.stdin.read() if text == "-" else text for text in options.inputs]


def _fill_mask(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    def use(texts):
        return model.fill_mask(texts, top_k=options.top)

    for _, filled in _each(_texts(options), options, use):
        spans = [
            {"start": s.start, "stop": s.stop, "text": s.text, "probability": s.probability}
            for s in filled.spans
        ]
        shown = ", ".join(f"{s.text!r} {s.probability:.1%}" for s in filled.spans)
        yield f"{filled.text}\n  {shown}", {"text": filled.text, "spans": spans}


def _classify_texts(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    texts = _texts(options)

    def use(some):
        given = [text_classes.split(text) for text in some]
        return model.classify(given, top_k=options.top, task=options.task)

    for place, labels in _each(texts, options, use):
        text = texts[place]
        if model.spec.columns[options.task].stop - model.spec.columns[options.task].start == 1:
            label, number = labels[0]
            yield f"{text}: {label} {number:.4g}", {"text": text, label: number}
        else:
            yield f"{text}: {_line(labels)}", {"text": text, "labels": _rows(labels)}


def _compare(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    texts = _texts(options)

    def use(some):
        pairs = [text_classes.split(text) for text in some]
        for text, pair in zip(some, pairs, strict=True):
            if isinstance(pair, str) or len(pair) != 2:
                raise ValueError(
                    f"{text[:80]!r} is not a pair: write one text[SEP]another, or add --embed to "
                    "embed single texts"
                )
        return model.compare(*map(list, zip(*pairs, strict=True)), top_k=options.top)

    for place, compared in _each(texts, options, use):
        text = texts[place]
        labels = f", {_line(compared.labels)}" if compared.labels else ""
        row = {"text": text, "cosine": compared.cosine, "labels": _rows(compared.labels)}
        yield f"{text}: cosine {compared.cosine:.3f}{labels}", row


def _embed(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    given, about = options.inputs, []
    names = given
    if model.kind == "text_classifier":
        names = _texts(options)
        given = [text_classes.split(text) for text in names]
        about = [options.task] if options.task else []
    elif model.kind in (*specs.MASKED_LMS, "sentence_encoder"):
        given = names = _texts(options)
    elif model.kind not in specs.IMAGE_CLASSIFIERS:
        raise ValueError(
            f"--embed is for images and texts, not for a model of kind {model.kind}; "
            "perceiver.load(MODEL).embed takes all kinds of inputs"
        )
    if options.out is not None and options.out.suffix != ".npy":
        raise ValueError(f"--out {options.out}: write embeddings as .npy")
    rows = {}
    for place, row in _each(given, options, lambda some: model.embed(some, *about)):
        rows[place] = row
        line = f"{names[place]}: {len(row)} numbers, norm {np.linalg.norm(row):.4g}"
        yield line, {"input": names[place], "embedding": row.tolist()}
    if options.out is not None:  # NaN for a broken input: rows keep their places
        embeddings = np.full((len(given), len(row)), np.nan, np.float32)
        embeddings[list(rows)] = list(rows.values())
        np.save(options.out, embeddings)


def _flow(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    if len(options.inputs) != 2:
        raise ValueError(f"optical flow needs two frames, got {len(options.inputs)} files")
    out = options.out or pathlib.Path("flow.png")
    if out.suffix not in _FLOW_FILES:
        raise ValueError(f"--out {out}: write flow as one of {', '.join(_FLOW_FILES)}")
    flow = model.flow(*options.inputs)
    _FLOW_FILES[out.suffix](out, flow)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    height, width = speed.shape
    yield (
        f"{out}: {height}x{width}, mean motion {speed.mean():.2f} pixels, "
        f"maximum {speed.max():.2f}",
        {"file": str(out), "mean": float(speed.mean()), "max": float(speed.max())},
    )


def _autoencode(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    if len(options.inputs) != 1:
        raise ValueError(f"give one video file, got {len(options.inputs)}")
    out = options.out or pathlib.Path("reconstruction.mp4")
    autoencoded = model.autoencode(options.inputs[0], top_k=options.top)
    video_files.write(
        out,
        autoencoded.video,
        autoencoded.audio,
        frames_per_second=model.usage["video"]["frames_per_second"],
        sample_rate=model.usage["audio"]["sample_rate"],
    )
    labels = {"file": options.inputs[0], "out": str(out), "labels": _rows(autoencoded.labels)}
    yield (
        f"{options.inputs[0]}: {_line(autoencoded.labels)}\n  {out}: {len(autoencoded.video)} "
        "frames",
        labels,
    )


def _tag(model: Pretrained, options: argparse.Namespace) -> Iterator[Shown]:
    def use(files):
        return (model.tag(file, hop=options.hop, top_k=options.top) for file in files)

    for place, tagged in _each(options.inputs, options, use):
        file = options.inputs[place]
        lines = [f"{file}: {_line(tagged.labels)}"]
        lines += [f"  no {what}: replaced by {_AS[what]}" for what in tagged.missing]
        if len(tagged.timeline) > 1:
            lines += [f"  {when}  {_line(labels)}" for when, labels in _stretches(tagged)]
        windows = [{"start": start, "labels": _rows(rows)} for start, rows in tagged.timeline]
        yield (
            "\n".join(lines),
            {
                "file": file,
                "labels": _rows(tagged.labels),
                "missing": list(tagged.missing),
                "window": tagged.seconds,
                "timeline": windows,
            },
        )


def _stretches(tagged: Tagged) -> Iterator[tuple[str, Sequence[tuple[str, float]]]]:
    """Joins neighbours of the same best label; their scores are those of the most certain one."""
    for _, group in itertools.groupby(tagged.timeline, key=lambda window: window[1][0][0]):
        group = list(group)
        _, labels = max(group, key=lambda window: window[1][0][1])
        yield f"{_clock(group[0][0])}-{_clock(group[-1][0] + tagged.seconds)}", labels


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def _save_flo(path: pathlib.Path, flow: np.ndarray) -> None:
    """Writes the Middlebury format: a magic number, width, height, (right, down) by rows."""
    height, width = flow.shape[:2]
    head = np.float32(202021.25).tobytes() + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + flow.astype("<f4").tobytes())


_FLOW_FILES = {
    ".png": lambda path, flow: images.to_pil(flow_picture(flow), 3).save(path),
    ".npy": np.save,
    ".flo": _save_flo,
}

_COMMANDS = {
    **dict.fromkeys(specs.IMAGE_CLASSIFIERS, _classify),
    "clip_classifier": _tag,
    **dict.fromkeys(specs.MASKED_LMS, _fill_mask),
    "optical_flow": _flow,
    "sentence_encoder": _compare,
    "text_classifier": _classify_texts,
    "video_autoencoder": _autoencode,
}


def _line(labels: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label} {p:.1%}" for label, p in labels)


def _rows(labels: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": p} for label, p in labels]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what a model makes of files."""
    parser = argparse.ArgumentParser(
        prog="python -m perceiver.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="run, model folder, weights file or released name")
    parser.add_argument("inputs", nargs="+", help="files or texts, depending on the kind of model")
    parser.add_argument(
        "--out", type=pathlib.Path, help="output file, for flow, video and embeddings"
    )
    parser.add_argument(
        "--embed", action="store_true", help="print or write embeddings of images or texts"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per input")
    parser.add_argument(
        "--top", type=int, default=3, help="number of labels or candidates (default 3)"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="image size, if different from training",
    )
    parser.add_argument(
        "--hop", type=float, help="seconds between windows of a video (default: half a window)"
    )
    parser.add_argument("--task", default="", help="task of a text classifier that has several")
    parser.add_argument(
        "--operands",
        choices=("float32", "bfloat16"),
        help="dtype of matrix products; bfloat16 is faster",
    )
    options = parser.parse_args(arguments)
    options.broken = 0
    if options.top < 1:
        parser.error(f"--top must be at least 1, got {options.top}")
    if options.hop is not None and not options.hop > 0:
        parser.error(f"--hop must be positive, got {options.hop}")
    compile_cache.enable_if_possible()
    compute = {} if options.operands is None else {"operands": options.operands}
    size = None if options.image_size is None else tuple(options.image_size)
    try:
        model = load(options.model, image_size=size, **compute)
        command = _embed if options.embed else _COMMANDS[model.kind]
        # a video is many examples by itself
        options.batch_size = 1 if model.kind == "clip_classifier" else model.batch_size
        for line, result in command(model, options):
            print(json.dumps(result, ensure_ascii=False) if options.json else line, flush=True)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    if options.broken:
        sys.exit(f"{options.broken} of {len(options.inputs)} inputs were broken and have no result")


if __name__ == "__main__":
    main()
