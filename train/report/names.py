"""Names of classes in pictures: short, of any script, and never boxes."""

import contextlib
import functools
import unicodedata
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib import font_manager, ft2font

LONGEST = 28  # letters
_OWN = ("DejaVu Sans",)  # comes with matplotlib


@contextlib.contextmanager
def drawn(names: Sequence[str]) -> Iterator[list[str]]:
    """Yields the names as they can be drawn, and lets matplotlib draw in fonts that have them.

    A name with letters that no installed font has becomes the class's number. Of what runs from
    right to left, matplotlib draws the letters one by one from the left: such a name is turned.
    """
    families, missing = list(_OWN), set("".join(names)) - _letters(_OWN[0])
    for family in _others() if missing else ():
        found = missing & _letters(family)
        if found:
            families.append(family)
            missing -= found
    shown = [
        f"class {i}" if missing & set(name) else _shorten(name) for i, name in enumerate(names)
    ]
    with matplotlib.rc_context({"font.family": families}):
        yield shown


@functools.cache
def _others() -> tuple[str, ...]:
    return tuple(sorted({font.name for font in font_manager.fontManager.ttflist} - set(_OWN)))


@functools.cache
def _letters(family: str) -> frozenset[str]:
    try:
        path = font_manager.findfont(family, fallback_to_default=False)
        return frozenset(map(chr, ft2font.FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a font that matplotlib cannot read
        return frozenset()


def _shorten(name: str) -> str:
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    directions = {unicodedata.bidirectional(letter) for letter in name}
    if directions & {"R", "AL"} and "L" not in directions:
        short = short[::-1]
    return short.replace("$", r"\$")  # a dollar would begin a formula
