"""Learning-rate schedules, from `config.optim`, out of optax's pieces.

The papers use four shapes, and each reads its own fields of the section and no others:

    constant         ModelNet40 (Perceiver, section 4.3)
    step_decay       ImageNet (Perceiver, section 4.1): x 0.1 at epochs 84, 102 and 114 of 120
    constant_cosine  ImageNet (Perceiver IO, appendix A.1): flat for the first half, no warm-up
    warmup_cosine    masked language modelling (Perceiver IO, table 12)
"""

import math
from typing import Protocol

import optax


class ScheduleConfig(Protocol):
    """The fields of `config.optim` that are read here."""

    schedule: str  # a key of SCHEDULES
    lr: float  # the highest learning rate of the run
    steps: int  # optimiser steps of the whole run
    warmup_steps: int  # warmup_cosine: steps from 0 up to lr
    constant_fraction: float  # constant_cosine: part of the run at lr, 0 <= fraction < 1
    decay_at: tuple[float, ...]  # step_decay: parts of the run after which the rate drops
    decay_factor: float  # step_decay: what each drop multiplies the rate by


def make(config: ScheduleConfig) -> optax.Schedule:
    """Builds the schedule that `config.schedule` names.

    Args:
        config: The `optim` section, or anything with its attributes.

    Returns:
        A function from the number of updates already applied (int or i32[]) to the learning rate of
        the next one, usable inside jit. Beyond `steps` it keeps its last value.

    Raises:
        ValueError: On an unknown name or a value out of range; names the field and the remedy.
    """
    if config.schedule not in SCHEDULES:
        raise ValueError(
            f"optim.schedule={config.schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}"
        )
    if not (math.isfinite(config.lr) and config.lr > 0):
        raise ValueError(f"optim.lr={config.lr} must be a finite number above 0, such as 1e-3")
    if config.steps < 1:
        raise ValueError(f"optim.steps={config.steps} must be at least 1; set train.steps")
    return SCHEDULES[config.schedule](config)


def _constant(config: ScheduleConfig) -> optax.Schedule:
    return optax.constant_schedule(config.lr)


def _constant_cosine(config: ScheduleConfig) -> optax.Schedule:
    if not 0 <= config.constant_fraction < 1:
        raise ValueError(
            f"optim.constant_fraction={config.constant_fraction} must be at least 0 and below 1; "
            "for a rate that never falls set optim.schedule='constant'"
        )
    # At least one step of cosine, so that a run of two steps (a smoke run) has both parts.
    constant_steps = min(round(config.constant_fraction * config.steps), config.steps - 1)
    return optax.join_schedules(
        [
            optax.constant_schedule(config.lr),
            optax.cosine_decay_schedule(config.lr, config.steps - constant_steps),
        ],
        [constant_steps],
    )


def _step_decay(config: ScheduleConfig) -> optax.Schedule:
    if not all(0 < fraction < 1 for fraction in config.decay_at):
        raise ValueError(
            f"optim.decay_at={tuple(config.decay_at)} must be fractions of the run, between 0 "
            "and 1, such as (84 / 120, 102 / 120, 114 / 120)"
        )
    if not 0 < config.decay_factor <= 1:
        raise ValueError(
            f"optim.decay_factor={config.decay_factor} must be above 0 and at most 1, such as 0.1"
        )
    # In a very short run two drops can round to the same step: both count.
    scales: dict[int, float] = {}
    for fraction in config.decay_at:
        boundary = round(fraction * config.steps)
        scales[boundary] = scales.get(boundary, 1.0) * config.decay_factor
    return optax.piecewise_constant_schedule(config.lr, scales)


def _warmup_cosine(config: ScheduleConfig) -> optax.Schedule:
    if not 0 <= config.warmup_steps < config.steps:
        raise ValueError(
            f"optim.warmup_steps={config.warmup_steps} must be at least 0 and below "
            f"optim.steps={config.steps}; shorten the warm-up or train for longer"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.lr,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
    )


SCHEDULES = {
    "constant": _constant,
    "constant_cosine": _constant_cosine,
    "step_decay": _step_decay,
    "warmup_cosine": _warmup_cosine,
}
