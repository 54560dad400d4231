import functools
import logging
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from train import step as step_lib
from train.checkpoint import checkpoint as checkpoint_lib
from train.devices import placement as placement_lib
from train.devices import sharding

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def state():
    """Several dtypes, an awkward path, values that no rounding survives."""
    rng = np.random.default_rng(0)
    return {
        "params": {"net/layers/mix": {"w": jnp.asarray(rng.normal(size=(3, 5, 7)), jnp.float32)}},
        "half": jnp.asarray(rng.normal(size=(11,)), jnp.bfloat16),
        "step": jnp.int32(2**31 - 1),
        "odd": jnp.array([np.nan, np.inf, -0.0, np.finfo(np.float32).smallest_subnormal]),
        "mask": (jnp.array([True, False]), None),
    }


@pytest.fixture
def three(tmp_path, state):
    """A folder with steps 10, 20 and 30; the state's "step" tells them apart."""
    with checkpoint_lib.Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (10, 20, 30):
            assert checkpoints.save(step, _at(state, step), {"batches": step}, {"lr": 0.5})
    return checkpoints.folder


def test_values_come_back_bit_for_bit(tmp_path, state):
    with checkpoint_lib.Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.restore(_abstract(state)) is None
        assert checkpoints.save(7, state, {"batches": 7}, {"lr": 1e-3, "decay_at": (0.5, 0.75)})
        restored = checkpoints.restore(_abstract(state))
    assert restored.step == 7
    assert restored.data_state == {"batches": 7}
    assert restored.config == {"lr": 1e-3, "decay_at": [0.5, 0.75]}
    _assert_same_bits(restored.state, state)
    assert restored.state["half"].dtype == ml_dtypes.bfloat16


def test_the_newest_are_kept_and_a_step_is_saved_once(tmp_path, state):
    with checkpoint_lib.Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (3, 5, 8, 13):
            assert checkpoints.save(step, _at(state, step), None, None)
        assert not checkpoints.save(13, _at(state, 0), None, None)
        checkpoints.wait()
        assert checkpoints.steps() == [8, 13]
        assert checkpoints.restore(_abstract(state)).state["step"] == 13


def test_the_next_step_may_consume_a_state_that_is_being_saved(tmp_path):
    size = 2_000_000
    consume = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(size)
    with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": x}, None, None)
        for _ in range(50):
            x = consume(x)
        x.block_until_ready()
        restored = checkpoints.restore({"x": jax.ShapeDtypeStruct(x.shape, x.dtype)})
    assert float(x[0]) == 50.0
    np.testing.assert_array_equal(restored.state["x"], np.zeros(size, np.float32))


@pytest.mark.parametrize(
    "damage",
    ["flip", "truncate", "delete", "delete_run", "delete_seal", "empty"],
)
def test_a_damaged_checkpoint_is_passed_over_and_reported(
    three, state, caplog, monkeypatch, damage
):
    newest = three / "30"
    array = max(newest.glob("state/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
    content = array.read_bytes()
    if damage == "flip":
        array.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "truncate":
        array.write_bytes(content[: len(content) // 2])
    elif damage == "delete":
        array.unlink()
    elif damage == "delete_run":
        shutil.rmtree(newest / "run")
    elif damage == "delete_seal":
        (newest / "checksums.json").unlink()
    elif damage == "empty":
        shutil.rmtree(newest)
        newest.mkdir()

    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    with checkpoint_lib.Checkpoints(three) as checkpoints:
        restored = checkpoints.restore(_abstract(state))
        assert restored.step == restored.state["step"] == 20
        assert restored.data_state == {"batches": 20}
        ((path, reason),) = checkpoints.damaged
        assert path == newest
        assert reason
        assert f"{newest} is damaged ({reason})" in caplog.text

        # The run goes on, and saves its step 30 again; the damaged one stays for inspection.
        assert (three / "30.damaged").is_dir()
        assert checkpoints.save(30, _at(state, 31), None, None)
        assert checkpoints.restore(_abstract(state)).state["step"] == 31
        assert checkpoints.damaged == []
        assert checkpoints.steps() == [10, 20, 30]


def test_nothing_but_damage_is_an_error_that_names_it_all(three, state):
    for step in (10, 20, 30):
        (three / str(step) / "run" / "metadata").write_text("{}")
    with checkpoint_lib.Checkpoints(three) as checkpoints:
        with pytest.raises(ValueError, match="all 3 checkpoints") as error:
            checkpoints.restore(_abstract(state))
        for step in (10, 20, 30):
            assert f"{three / str(step)}: run/metadata has 2 bytes" in str(error.value)
        assert "delete the folder" in str(error.value)
        assert checkpoints.steps() == [10, 20, 30]  # nothing is touched


def test_reading_changes_nothing(three, state):
    (three / "30" / "checksums.json").unlink()
    (three / "40.orbax-checkpoint-tmp").mkdir()  # another process at work
    before = sorted(path.name for path in three.iterdir())
    with checkpoint_lib.Checkpoints(three, keep=1, read_only=True) as checkpoints:
        assert checkpoints.restore(_abstract(state)).step == 20
    assert sorted(path.name for path in three.iterdir()) == before


def test_what_a_killed_save_left_is_swept_away(three, state):
    left = three / "40.orbax-checkpoint-tmp"
    shutil.copytree(three / "30", left)
    with checkpoint_lib.Checkpoints(three) as checkpoints:
        assert checkpoints.restore(_abstract(state)).step == 30
    assert not left.exists()


def test_another_models_checkpoint_is_refused_by_names(three, state):
    other = dict(state)
    other["step"] = jnp.zeros((), jnp.int8)
    other["params"] = {"net/layers/mix": {"w": jnp.zeros((3, 7, 5)), "b": jnp.zeros(5)}}
    del other["half"]
    with checkpoint_lib.Checkpoints(three) as checkpoints:
        with pytest.raises(ValueError, match="another model") as error:
            checkpoints.restore(_abstract(other))
        _assert_same_bits(checkpoints.restore(_abstract(state)).state, _at(state, 30))
    lines = str(error.value).splitlines()
    assert str(three / "30") in lines[0]
    assert lines[1].strip() == "only in the checkpoint: half"
    assert lines[2].strip() == "only in this run: params/net/layers/mix/b"
    assert "step: int32[] in the checkpoint, int8[] here" in lines[3]
    assert "w: float32[3, 5, 7] in the checkpoint, float32[3, 7, 5] here" in lines[3]
    assert "work dir" in lines[4]


def test_long_lists_of_names_are_cut(tmp_path):
    many = {f"x{n:02}": jnp.zeros(2) for n in range(11)}
    with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, many, None, None)
        with pytest.raises(ValueError, match=r"x00, .*x07, and 3 more"):
            checkpoints.restore({})


def test_bad_arguments_are_refused(tmp_path, state):
    with pytest.raises(ValueError, match="keep must be at least 1 checkpoint, got 0"):
        checkpoint_lib.Checkpoints(tmp_path, keep=0)
    with pytest.raises(FileNotFoundError, match="missing"):
        checkpoint_lib.Checkpoints(tmp_path / "missing", read_only=True)
    with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="JSON"):
            checkpoints.save(1, state, {"position": object()}, None)
        with pytest.raises(ValueError, match="same path"):
            checkpoints.save(1, {"a/b": jnp.ones(2), "a": {"b": jnp.ones(3)}}, None, None)
        assert checkpoints.steps() == []


@pytest.mark.parametrize(
    ("source", "target"),
    [("sharded", "single"), ("single", "sharded"), ("pmap", "sharded"), ("sharded", "pmap")],
)
def test_a_state_is_restored_on_another_placement(tmp_path, toy_task, toy_batch, source, target):
    init = functools.partial(
        step_lib.init_state, toy_task(), optax.lamb(1e-2), 0, toy_batch(2), 0.9
    )
    source, target = placement_lib.make(source), placement_lib.make(target)
    rng = np.random.default_rng(0)
    state = source.place(
        jax.tree.map(
            lambda x: rng.integers(256, size=(*x.shape, 4), dtype=np.uint8).view(x.dtype)[..., 0],
            jax.eval_shape(init),
        )
    )
    abstract = target.abstract(init)
    with checkpoint_lib.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, source.canonical(state), {"batches": 1}, {})
        restored = checkpoints.restore(abstract).state
    assert isinstance(restored, step_lib.TrainState)
    _assert_same_bits(restored, state)
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(abstract), strict=True):
        assert got.sharding == want.sharding
    if target.name == "sharded":
        rows = {row.path: row for row in sharding.sharding_table(restored)}
        row = rows["params/layers/mix/w"]
        assert row.bytes_per_device * target.devices == row.bytes_total


def test_orbax_is_silent_and_warnings_are_not(three, state, capfd):
    script = (
        "import logging, sys, jax, jax.numpy as jnp; logging.basicConfig(level='INFO');"
        "from absl import logging as absl; absl.set_verbosity('info');"
        "from train.checkpoint import checkpoint;"
        "c = checkpoint.Checkpoints(sys.argv[1]);"
        "c.save(50, {'x': jnp.ones(3)}, None, None);"
        "c.restore({'x': jax.ShapeDtypeStruct((3,), jnp.float32)}); c.close();"
        "absl.info('ours')"
    )
    subprocess.run([sys.executable, "-c", script, str(three)], cwd=ROOT, check=True)
    output = capfd.readouterr().err
    assert "ours" in output
    assert "orbax" not in output.lower()
    assert "heckpoint" not in output


def _at(state, step):
    return state | {"step": jnp.int32(step)}


def _abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _assert_same_bits(got, want):
    got = jax.tree_util.tree_leaves_with_path(got)
    want = jax.tree_util.tree_leaves_with_path(want)
    assert [path for path, _ in got] == [path for path, _ in want]
    for (path, a), (_, b) in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
