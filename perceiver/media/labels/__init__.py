"""Names of the classes that the released models tell apart.

imagenet     1,000: WordNet synset and the first of its lemmas, in the order of the synsets (two
             pairs share a lemma and are told apart)
kinetics700  700 actions in alphabetical order. That the released video model numbers them so has
             not been checked on its weights.
"""

import functools
import importlib.resources


@functools.lru_cache
def imagenet() -> tuple[str, ...]:
    """Returns 1,000 names, `tench` first."""
    return tuple(line.split(" ", maxsplit=1)[1] for line in _lines("imagenet.txt"))


@functools.lru_cache
def imagenet_synsets() -> tuple[str, ...]:
    """Returns the 1,000 WordNet ids in the same order, `n01440764` first."""
    return tuple(line.split(" ", maxsplit=1)[0] for line in _lines("imagenet.txt"))


@functools.lru_cache
def kinetics700() -> tuple[str, ...]:
    """Returns 700 names, `abseiling` first."""
    return tuple(_lines("kinetics700.txt"))


@functools.lru_cache
def audioset() -> tuple[str, ...]:
    """Returns 527 names, `Speech` first."""
    return tuple(line.split(" ", maxsplit=1)[1] for line in _lines("audioset.txt"))


@functools.lru_cache
def audioset_mids() -> tuple[str, ...]:
    """Returns 527 ids of the ontology in the same order, `/m/09x0r` first."""
    return tuple(line.split(" ", maxsplit=1)[0] for line in _lines("audioset.txt"))


def _lines(name: str) -> list[str]:
    text = importlib.resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    return text.splitlines()
