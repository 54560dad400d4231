"""What readers of text give: documents, and faults in their place."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

# What can be wrong, as the report calls it.
KINDS = ("binary", "broken", "empty", "invalid", "long_line", "no_field")
DOCUMENTS = ("file", "line", "paragraph")  # what one document of a plain text file is


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A document as it was found; whether it is UTF-8 is looked at later."""

    place: str  # "folder/file.jsonl:17"
    content: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Something that cannot be used."""

    kind: str  # one of KINDS
    place: str
    reason: str


Pieces = Iterator[Text | Fault]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How inputs are read."""

    field: str = "text"  # of JSON lines, tables, TFDS and Hugging Face data sets
    documents: str = "file"  # of plain text, one of DOCUMENTS
    max_line_bytes: int = 16 * 2**20  # longer lines are left out, without being held
    tfds_dir: str = ""  # where TFDS data is; "": its own default

    def __post_init__(self):
        if self.documents not in DOCUMENTS:
            raise ValueError(f"--documents {self.documents!r}: choose one of {DOCUMENTS}")
        if self.max_line_bytes < 1:
            raise ValueError(f"--max_line_bytes must be at least 1, got {self.max_line_bytes}")


def of_record(record: Mapping[str, Any], field: str, place: str) -> Text | Fault:
    """Returns the text in a field of a record, or why there is none."""
    value = record.get(field)
    if value is None:
        fields = f"it has {', '.join(map(str, record)) or 'none'}"
        reason = f"{field!r} is empty" if field in record else f"no field {field!r}; {fields}"
        return Fault("no_field", place, reason)
    if isinstance(value, bytes):
        return Text(place, value)
    if not isinstance(value, str):
        return Fault("no_field", place, f"{field!r} is of type {type(value).__name__}, not text")
    return Text(place, encode(value))


def encode(text: str) -> bytes:
    """Returns UTF-8; what was no UTF-8 before, or never can be, is none afterwards either."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    try:
        return text.encode(errors="surrogateescape")  # bytes that `decode` has let through
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")  # half a character, as "\ud800" in JSON


def decode(content: bytes) -> str:
    """Returns a string that `encode` turns into the same bytes, valid or not."""
    return content.decode(errors="surrogateescape")
