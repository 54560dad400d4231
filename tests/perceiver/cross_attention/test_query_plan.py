import haiku as hk
import jax
import jax.numpy as jnp
import pytest

from perceiver.cross_attention import Plan
from perceiver.cross_attention.queries import query_plan
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.positions import Dense, SeparableFourier

B, N, D = 2, 11, 12
FLOW = (1, 368, 496, 64)


def planned(shape, positions=None, *, latents=(1, 2048, 512), path="auto", **options) -> Plan:
    queries = jax.ShapeDtypeStruct(shape, jnp.float32)
    if positions is not None:
        queries = ByteArray.of(Segment(queries, positions))

    def plan():
        decoder = Decoder(**({"heads": 1} | options), compute=Compute(path=path), name="decoder")
        return decoder.plan(queries, jax.ShapeDtypeStruct(latents, jnp.float32))

    result = []
    params = hk.transform(lambda: result.append(plan())).init(None)
    assert not params
    return result[0]


def test_plans_tell_path_and_reason():
    grid = SeparableFourier.of_grid(FLOW[1:-1], bands=64)
    flow = planned(FLOW, grid)
    assert str(flow).startswith("inputs (182,528 elements): separable, Fourier positions of a 368")
    assert "streaming" in flow.choices[0].reason
    assert planned((1, 182_528, 322)).choices[0].path == "shared"
    assert planned(FLOW, grid, heads=8).choices[0].path == "streaming"
    assert "8 heads" in str(planned(FLOW, grid, heads=8))
    # wide queries against few, narrow latents: projecting them is cheaper than absorbing
    narrow = planned((1, 200_000, 1024), latents=(1, 256, 64))
    assert narrow.choices[0].path == "streaming"
    assert planned((64, 2048, 768), latents=(64, 256, 1280), heads=8, qk_channels=256).is_plain
    assert planned(FLOW, grid, path="plain").is_plain
    assert "as requested" in str(planned(FLOW, grid, path="shared"))


def test_the_plan_changes_at_the_number_of_weights_that_counts():
    latents, channels = 64, 16
    most = query_plan.FEW_SCORES // latents
    assert planned((1, most, channels), latents=(1, latents, 32)).is_plain
    assert not planned((1, most + 1, channels), latents=(1, latents, 32)).is_plain
    halved = planned((1, most, channels), latents=(1, latents, 32), heads=2)
    assert halved.choices[0].path == "streaming"


@pytest.mark.parametrize(
    ("positions", "options", "message"),
    [
        (None, {"path": "separable"}, "no positions"),
        (Dense(jnp.zeros((35, 4))), {"path": "separable"}, "Dense positions"),
        (SeparableFourier.of_grid((7, 5), bands=3), {"path": "separable", "heads": 2}, "2 heads"),
        (
            SeparableFourier.of_grid((7, 5), bands=3),
            {"path": "shared", "heads": 2},
            "use path='auto' or 'streaming'",
        ),
    ],
)
def test_a_forced_path_that_cannot_serve_is_refused(positions, options, message):
    shape = (B, 7, 5, 3) if positions is not None else (B, 35, 3)
    with pytest.raises(ValueError, match=message):
        planned(shape, positions, latents=(B, N, D), **options)
