"""What the contracts share: the shapes of a full-size model, made once in a run."""

import json

import jax
import pytest

import perceiver
from perceiver.kinds import specs


@pytest.fixture(scope="session")
def shapes_of():
    """Returns a function: spec -> shapes of (parameters, module state), made once for each spec."""
    made = {}

    def shapes_of(spec):
        key = json.dumps(specs.parse(spec).to_dict(), sort_keys=True)  # with defaults filled in
        if key not in made:
            made[key] = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))
        return made[key]

    return shapes_of
