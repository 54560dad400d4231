"""The command line of a config: `--config=FILE:VARIANT --config.SECTION.FIELD=VALUE ...`."""

import difflib
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from train.run import workdir


def check(words: Sequence[str], config: Any = None) -> None:
    """Raises ValueError for a config file, variant or field that does not exist.

    ml_collections finds these too, but ends in a traceback that names neither place nor remedy.

    Args:
      words: of the command line; those that are not about a config are passed over.
      config: whose fields they may set; None: of the file that they name.
    """
    config = _load(words) if config is None else config
    if config is None:
        return  # the flags parser says that --config is missing
    fields = [name for name, _ in workdir.leaves(config)]
    for word in words:
        name = word.removeprefix("--config.").partition("=")[0]
        if word.startswith("--config.") and name not in fields:
            near = difflib.get_close_matches(name, fields, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see configs/common.py"
            raise ValueError(f"{word}: the config has no field {name!r}; {hint}")


def read(words: Sequence[str], config: Any = None) -> ml_collections.ConfigDict:
    """Returns the config that the words describe, for programs with a parser of their own.

    Args:
      words: `--config=FILE:VARIANT` unless there is a config, and `--config.FIELD=VALUE`.
      config: to change; it stays as it is.

    Raises:
      ValueError: what `check` finds, or a value of the wrong type.
    """
    if config is None:
        config = _load(words)
    else:
        config = ml_collections.ConfigDict(config.copy_and_resolve_references())
    if config is None:
        raise ValueError("--config=FILE:VARIANT is missing")
    changes = [word for word in words if word.startswith("--config.")]
    check(changes, config)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=changes)
    try:
        values(["", *changes])
    except flags.Error as error:
        raise ValueError(str(error)) from error
    return values.config


def _load(words: Sequence[str]) -> ml_collections.ConfigDict | None:
    """Returns the config of the last `--config=FILE:VARIANT`; None where there is none."""
    sources = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    if not sources:
        return None
    path, _, variant = sources[-1].partition(":")
    if not pathlib.Path(path).is_file():
        known = ", ".join(sorted(map(str, pathlib.Path("configs").glob("[!_]*.py"))))
        raise ValueError(f"--config={path}: no such file; available are {known}")
    return runpy.run_path(path)["get_config"](variant)
