"""One environment for every test: eight virtual devices, strict numerics, no display.

The settings are environment variables, set before JAX or Matplotlib is imported, so that the
programs which tests start as child processes run under the same rules.
"""

import gc
import importlib.metadata
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

if "jax" in sys.modules:
    raise RuntimeError(
        "jax was imported before tests/conftest.py could configure it; "
        "find the pytest plugin that imports it and disable it with `-p no:NAME`"
    )

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAGS = {"xla_force_host_platform_device_count": "8"}
# Most of a test's time is compiling programs that run once or twice, so they are optimised less
# than users' programs: on the oldest JAX not at all, on others almost as far. XLA_FLAGS that are
# given win: `--xla_backend_optimization_level=3 --xla_llvm_disable_expensive_passes=false` has the
# newest JAX compile as for users, which is what the nightly run does.
_OLDEST = importlib.metadata.version("jaxlib").startswith("0.10.")
if os.environ["JAX_PLATFORMS"] == "cpu":
    _FLAGS |= {
        "xla_backend_optimization_level": "0" if _OLDEST else "2",
        "xla_llvm_disable_expensive_passes": "true",
        "xla_cpu_parallel_codegen_split_count": "1",
    }
    if _OLDEST:  # others know no such flag, and stop
        _FLAGS["xla_cpu_use_fusion_emitters"] = "false"
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [*_given.split(), *(f"--{k}={v}" for k, v in _FLAGS.items() if f"--{k}=" not in _given)]
)
# [N] + [B, N] must be written with an explicit axis: silent broadcasting hides swapped axes.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("MPLBACKEND", "Agg")
# Many tests run the same programs, some of them in child processes: compile each once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# A process of tests holds millions of objects, through all of which Python goes to look for cycles
# whenever tracing has made some more: at its own thresholds that took 13 of 89 CPU seconds in two
# files of tests.
gc.set_threshold(50_000, 20, 20)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# Compilation makes the first example of a property slow, so no deadline. By day a property gets few
# examples, the same on every run: a failure belongs to the change at hand. `make test-all` gives
# more; `--hypothesis-profile=explore` draws new ones.
hypothesis.settings.register_profile("day", deadline=None, derandomize=True, max_examples=5)
hypothesis.settings.register_profile("night", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=100)
hypothesis.settings.load_profile("day")


SLOWEST = 20  # tests that the summary lists
_STARTED = pytest.StashKey[float]()
_MANY_MAPPINGS = 8_000  # with about 4 GB of programs


def _mappings() -> int:
    """Returns how many mappings of memory this process has; 0 where the system does not tell."""
    try:
        return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests that need what this machine or this run does not have."""
    missing = {
        "gpu": (jax.default_backend() != "gpu", "needs a GPU; set JAX_PLATFORMS=cuda"),
        "network": (
            os.environ.get("PERCEIVER_NETWORK") != "1",
            "needs the network; set PERCEIVER_NETWORK=1",
        ),
    }
    for item in items:
        for marker, (is_missing, reason) in missing.items():
            if is_missing and marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Notes the CPU time at which a test starts, its fixtures included."""
    item.stash[_STARTED] = _cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Adds the CPU time of a test to its last report, which reaches the summary."""
    report = yield
    if call.when == "teardown":
        report.user_properties.append(("cpu_seconds", _cpu_seconds() - item.stash[_STARTED]))
    return report


def pytest_terminal_summary(terminalreporter) -> None:
    """Lists the tests that took the most CPU time: what to mend first when the suite grows slow."""
    spent = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "cpu_seconds"
    }
    if len(spent) > SLOWEST:
        terminalreporter.section(f"{SLOWEST} slowest of {len(spent)} tests, in CPU seconds")
        for name in sorted(spent, key=spent.get, reverse=True)[:SLOWEST]:
            terminalreporter.line(f"{spent[name]:7.1f}  {name}")
        terminalreporter.line(f"{sum(spent.values()):7.1f}  all")


@pytest.fixture(scope="module", autouse=True)
def _drop_programs():
    """Drops compiled programs after a file of tests, when they have become many.

    Each takes some mappings of memory of its own. A process may have 65,530 of them (Linux's
    default), and where no more can be had XLA crashes.
    """
    yield
    if _mappings() > _MANY_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    """Numpy's generator for drawing test data, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def key() -> jax.Array:
    """JAX's random key for initialising and applying models, the same for every test."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """`trained(name)` is the folder of a run of `runs.CONFIGS`, trained once in the whole suite.

    To be read only: a test that changes a run copies it.
    """
    from tests.train import runs  # imports JAX, and what not all tests need

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a folder of each worker's own, in one of all
        root = root.parent
    return lambda name: runs.train_once(name, root / "trained")
