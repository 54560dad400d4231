"""Text stores: documents as files that are mapped into memory, never read whole.

    FOLDER/bytes.bin       all documents' UTF-8, end to end
    FOLDER/documents.npy   int64 [D + 1]: where each document begins; the last number is the end
    FOLDER/settings.json   what the store was made of, and how many
    FOLDER/report.csv      what was left out, where and why

Each document ends in white space, so that laid end to end no word reaches from one into the next.
`python -m data.prepare text` writes stores.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.weights import files

BYTES, DOCUMENTS, SETTINGS, REPORT = "bytes.bin", "documents.npy", "settings.json", "report.csv"


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """An open store, of D documents and T bytes."""

    folder: Path
    bytes: np.ndarray  # uint8 [T], a read-only map of the file
    starts: np.ndarray  # int64 [D + 1], likewise

    def __len__(self) -> int:
        return len(self.starts) - 1

    def document(self, index: int) -> np.ndarray:  # uint8 [bytes of the document]
        """Returns a view of a document.

        Raises:
          IndexError: `index` is not in 0..D - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} is outside 0..{len(self) - 1} of {self.folder}")
        return self.bytes[self.starts[index] : self.starts[index + 1]]

    def settings(self) -> dict[str, Any]:
        """Returns what the store was made of."""
        return files.read_json(self.folder / SETTINGS)

    def __reduce__(self):
        # A worker process maps the files itself: numpy would send it their whole content.
        return open_store, (self.folder,)


def open_store(folder: str | Path) -> Store:
    """Returns the store in a folder.

    Raises:
      FileNotFoundError: the folder has no store.
      ValueError: its files do not belong together.
    """
    folder = Path(folder).expanduser()
    missing = [name for name in (BYTES, DOCUMENTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"no text store at {folder}: it lacks {' and '.join(missing)}; create one with "
            "`python -m data.prepare text --input FILES --out DATA_DIR --name NAME`"
        )
    size = (folder / BYTES).stat().st_size
    # An empty file cannot be mapped.
    content = np.memmap(folder / BYTES, np.uint8, "r") if size else np.zeros(0, np.uint8)
    starts = np.load(folder / DOCUMENTS, mmap_mode="r")
    fits = starts.dtype == np.int64 and starts.ndim == 1 and len(starts) and starts[-1] == size
    if not (fits and starts[0] == 0 and (starts[1:] >= starts[:-1]).all()):
        raise ValueError(
            f"{folder}: {DOCUMENTS} does not match the {size} bytes of {BYTES}, so one of them is "
            "damaged or from another store: remove the folder and prepare it again"
        )
    return Store(folder, content, starts)
