import types

import jax
import numpy as np
import optax
import pytest

from train.optim import schedules


def config(schedule: str, **changes) -> types.SimpleNamespace:
    fields = {
        "schedule": schedule,
        "lr": 0.004,
        "steps": 120,
        "warmup_steps": 7,
        "constant_fraction": 0.5,
        "decay_at": (84 / 120, 102 / 120, 114 / 120),
        "decay_factor": 0.1,
    }
    return types.SimpleNamespace(**fields | changes)


def rates(schedule: optax.Schedule, steps: int) -> np.ndarray:
    return np.array([float(schedule(step)) for step in range(steps)])


def test_constant_never_changes():
    np.testing.assert_allclose(rates(schedules.make(config("constant")), 130), 0.004)


def test_constant_cosine_is_flat_for_half_the_run_and_falls_to_zero():
    schedule = schedules.make(config("constant_cosine"))
    step = np.arange(60)
    expected = np.concatenate(
        [np.full(60, 0.004), 0.004 * (1 + np.cos(np.pi * step / 60)) / 2, np.zeros(5)]
    )
    np.testing.assert_allclose(rates(schedule, 125), expected, atol=1e-9)


def test_step_decay_drops_at_the_epochs_of_the_paper():
    schedule = schedules.make(config("step_decay", steps=1200))
    expected = np.repeat([4e-3, 4e-4, 4e-5, 4e-6], [840, 180, 120, 70])
    np.testing.assert_allclose(rates(schedule, 1210), expected, rtol=1e-6)


def test_step_decay_counts_drops_that_round_to_one_step():
    schedule = schedules.make(config("step_decay", steps=2))
    np.testing.assert_allclose(rates(schedule, 3), [4e-3, 4e-4, 4e-6], rtol=1e-6)


def test_warmup_cosine_rises_linearly_and_falls_to_zero():
    schedule = schedules.make(config("warmup_cosine"))
    step = np.arange(120 - 7)
    expected = np.concatenate(
        [0.004 * np.arange(7) / 7, 0.004 * (1 + np.cos(np.pi * step / 113)) / 2, np.zeros(5)]
    )
    np.testing.assert_allclose(rates(schedule, 125), expected, atol=1e-9)


def test_warmup_cosine_without_warm_up_starts_at_the_top():
    schedule = schedules.make(config("warmup_cosine", warmup_steps=0))
    assert float(schedule(0)) == pytest.approx(0.004)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_works_in_jit_and_in_a_run_of_two_steps(name):
    schedule = schedules.make(config(name, steps=2, warmup_steps=1))
    compiled = jax.jit(lambda step: jax.numpy.asarray(schedule(step)))
    for step in range(3):
        assert float(compiled(np.int32(step))) == pytest.approx(float(schedule(step)), abs=1e-9)
    assert max(rates(schedule, 2)) == pytest.approx(0.004)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_run_of_one_step_trains_at_the_full_rate(name):
    changes = {"steps": 1, "warmup_steps": 0, "decay_at": ()}
    assert float(schedules.make(config(name, **changes))(0)) == pytest.approx(0.004)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cosine", {}, "optim.schedule='cosine'.*constant, constant_cosine, step_decay, warmup"),
        ("constant", {"lr": 0.0}, "optim.lr=0.0"),
        ("constant", {"lr": float("nan")}, "optim.lr=nan"),
        ("constant", {"steps": 0}, "optim.steps=0 .*train.steps"),
        ("constant_cosine", {"constant_fraction": 1.0}, "constant_fraction=1.0.*'constant'"),
        ("constant_cosine", {"constant_fraction": -0.1}, "constant_fraction=-0.1"),
        ("step_decay", {"decay_at": (84.0,)}, r"decay_at=\(84.0,\).*fractions"),
        ("step_decay", {"decay_factor": 0.0}, "decay_factor=0.0"),
        ("warmup_cosine", {"warmup_steps": 120}, "warmup_steps=120.*optim.steps=120; shorten"),
        ("warmup_cosine", {"warmup_steps": -1}, "warmup_steps=-1"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(name, changes, message):
    with pytest.raises(ValueError, match=message):
        schedules.make(config(name, **changes))


def test_a_schedule_does_not_read_the_fields_of_another():
    changes = {"warmup_steps": 1000, "decay_at": (84.0,), "constant_fraction": 2.0}
    assert float(schedules.make(config("constant", **changes))(0)) == pytest.approx(0.004)
