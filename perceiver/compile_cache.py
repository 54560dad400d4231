"""Compiled programs kept on disk, so that a second start need not compile again."""

import os
import pathlib
import sys

import jax


def enable(folder: str | os.PathLike | None = None) -> pathlib.Path:
    """Keeps all of this process's compiled programs in a folder, for later processes.

    A program is found again for the same computation, shapes, JAX version and device. Nothing is
    ever removed.

    Args:
      folder: None: what JAX is set to already (`JAX_COMPILATION_CACHE_DIR`), else
        `~/.cache/perceiver/xla`.
    """
    known = jax.config.jax_compilation_cache_dir
    chosen = pathlib.Path(folder or known or "~/.cache/perceiver/xla").expanduser()
    chosen.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return chosen


def enable_if_possible() -> None:
    """Enables it for a command, which goes on without where its folder cannot be written."""
    try:
        enable()
    except (OSError, RuntimeError) as error:  # no such home; slower, but no less right
        print(f"compile cache disabled: {error}", file=sys.stderr)
