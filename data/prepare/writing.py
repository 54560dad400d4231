"""Writes examples that this project makes itself as a true TFDS data set.

TFDS's own builder does the writing, which needs no TensorFlow as long as pictures come encoded. It
writes into a folder `incomplete...` and renames that at the end, so an interrupted preparation
leaves nothing that reads as a data set.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Examples = Callable[[], Iterator[tuple[str, dict[str, Any]]]]  # -> unique key, example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A data set to write: what TFDS records about it, and its examples."""

    name: str  # "glyphs", as in `tfds:glyphs`
    version: str  # "1.0.0"; another content under the same settings is another version
    description: str
    features: dict[str, Any]  # name -> TFDS feature
    splits: dict[str, Examples]
    settings: dict[str, Any]  # all that the content depends on, fit for JSON


def write(recipe: Recipe, data_dir: str | Path) -> tuple[Path, bool]:
    """Returns the folder of the prepared files, and whether they were there already.

    Raises:
      ValueError: files of other settings are there.
    """
    import tensorflow_datasets as tfds

    root = default_folder(data_dir)
    folder = root / recipe.name / recipe.version
    if folder.exists():
        check_same(folder, recipe.settings)
        return folder, True
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = _builder_class(recipe)(data_dir=root, file_format="array_record")
    _remove_leftovers(folder)
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints its banner
        builder.download_and_prepare()
    # Folders of downloads, which it makes though there is nothing to download.
    for empty in (root / "downloads" / "extracted", root / "downloads"):
        with contextlib.suppress(OSError):
            empty.rmdir()
    return folder, False


def default_folder(data_dir: str | Path) -> Path:
    """Returns where data sets lie: the folder given, or when empty TFDS's own."""
    import tensorflow_datasets as tfds

    return Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()


def _builder_class(recipe: Recipe) -> type:
    import tensorflow_datasets as tfds

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Writes what the recipe says."""

        name = recipe.name
        VERSION = tfds.core.Version(recipe.version)
        # TFDS would look beside the code for checksums of downloads; there are none.
        code_path = None
        pkg_dir_path = None

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=recipe.description,
                features=tfds.features.FeaturesDict(recipe.features),
                metadata=tfds.core.MetadataDict(recipe.settings),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: examples() for split, examples in recipe.splits.items()}

        def _generate_examples(self) -> None:
            raise NotImplementedError("the splits provide the examples")

    return Written


def check_same(folder: Path, settings: dict[str, Any]) -> None:
    """Compares settings with those of the files in a folder.

    Raises:
      ValueError: they differ.
    """
    file = folder / "metadata.json"
    there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    wanted = json.loads(json.dumps(settings))
    changed = [
        f"{key} {there.get(key)} there, {wanted.get(key)} requested"
        for key in sorted(there.keys() | wanted.keys())
        if there.get(key) != wanted.get(key)
    ]
    if changed:
        raise ValueError(
            f"{folder} holds files prepared with other settings ({'; '.join(changed)}): "
            "remove that folder, or choose another --data_dir"
        )


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes settings where `check_same` finds them; TFDS does so itself at the end."""
    partial = folder / "partial_metadata.json"
    partial.write_text(json.dumps(settings), encoding="utf-8")
    partial.replace(folder / "metadata.json")


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed preparations of this version left behind."""
    import shutil

    for leftover in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(leftover)
