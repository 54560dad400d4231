"""`glyphs`: JPEG pictures of letters, digits and signs, drawn from the fonts in matplotlib.

An ImageNet-shaped task that needs no network: 69 classes, pictures of about 300 × 280 pixels. The
test split is of fonts that training never shows: DejaVu Serif in its four faces. The classes
remain apart under any change of size and place, a slight turn and a mirror: of look-alikes (C and
c, O and 0 and o, Π and n, A and Λ, b and d) one is kept.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.prepare import writing
from data.prepare.synthetic import glyph_pictures

_DIGITS = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
}
_GREEK = {
    "Gamma": "Γ",
    "Delta": "Δ",
    "Xi": "Ξ",
    "Pi": "Π",
    "Sigma": "Σ",
    "Phi": "Φ",
    "Psi": "Ψ",
    "Omega": "Ω",
    "lower_delta": "δ",
    "lower_theta": "θ",
    "lower_lambda": "λ",
    "lower_xi": "ξ",
    "lower_sigma": "σ",  # noqa: RUF001 (the Greek letter is meant)
    "lower_omega": "ω",
}
_SIGNS = {
    "ampersand": "&",
    "at": "@",
    "hash": "#",
    "dollar": "$",
    "percent": "%",
    "question": "?",
    "plus": "+",
    "equals": "=",
    "euro": "€",
    "pound": "£",
    "pilcrow": "¶",
    "asterisk": "*",
    "tilde": "~",
}
# Class name, safe as part of a file name -> character; labels count in this order.
CLASSES = (
    {letter: letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    | _DIGITS
    | {f"lower_{letter}": letter for letter in "abehmqrt"}
    | _GREEK
    | _SIGNS
)

_SANS = tuple(f"DejaVuSans{face}" for face in ("", "-Bold", "-Oblique", "-BoldOblique"))
_MONO = tuple(f"DejaVuSansMono{face}" for face in ("", "-Bold", "-Oblique", "-BoldOblique"))
_STIX = tuple(f"STIXGeneral{face}" for face in ("", "Bol", "Italic", "BolIta"))
_SERIF = tuple(f"DejaVuSerif{face}" for face in ("", "-Bold", "-Italic", "-BoldItalic"))
# Split -> its fonts, which it shares with no other.
FACES = {"train": (*_SANS, *_MONO, *_STIX), "test": _SERIF}


def recipe(
    *, train_per_class: int, test_per_class: int, seed: int, classes: tuple[str, ...] = ()
) -> writing.Recipe:
    """Returns what to write; `classes` are all when empty.

    Raises:
      ValueError: a count below 1, or a font that lacks a glyph.
      FileNotFoundError: matplotlib comes without one of the fonts.
    """
    import tensorflow_datasets as tfds

    names = classes or tuple(CLASSES)
    counts = {"train": train_per_class, "test": test_per_class}
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"--{split}_per_class must be at least 1, got {count}")
    _check_fonts(names)
    return writing.Recipe(
        name="glyphs",
        version="1.0.0",
        description=" ".join(__doc__.split()),
        features={
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=names),
            "file_name": tfds.features.Text(),
        },
        splits={
            split: functools.partial(_examples, split, names, count, seed)
            for split, count in counts.items()
        },
        settings={"per_class": counts, "seed": seed, "classes": list(names)},
    )


def _examples(
    split: str, names: tuple[str, ...], count: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields key and example; a picture depends on seed, split, class and number only."""
    faces = FACES[split]
    order = list(CLASSES)
    for name in names:
        for number in range(count):
            key = [seed, list(FACES).index(split), order.index(name), number]
            face = faces[number % len(faces)]  # every class in every font, as evenly as it goes
            picture = glyph_pictures.draw(
                CLASSES[name], str(_font_file(face)), np.random.default_rng(key)
            )
            file_name = f"{name}_{face}_{number:06d}.jpg"
            image = glyph_pictures.encode(picture)
            yield file_name, {"image": image, "label": name, "file_name": file_name}


def _check_fonts(names: tuple[str, ...]) -> None:
    for face in (*FACES["train"], *FACES["test"]):
        file = _font_file(face)
        if not file.is_file():
            raise FileNotFoundError(
                f"font {file} is missing: it is part of matplotlib; reinstall matplotlib"
            )
        lacking = [n for n in names if not glyph_pictures.has_glyph(CLASSES[n], str(file))]
        if lacking:
            raise ValueError(f"font {file} has no glyph for {lacking}: reinstall matplotlib")


def _font_file(face: str) -> Path:
    # An import of a second, for those who prepare only.
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
