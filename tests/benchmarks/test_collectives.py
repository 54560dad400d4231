"""Collectives are read from programs, and agree with the theory of each placement."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import scaling
from perceiver.kinds import released, specs


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (
            "%a = f32[3,5]{1,0} all-reduce(%x), replica_groups={{0,1,2,3},{4,5}}, to_apply=%add",
            ("all-reduce", 60, 4),
        ),
        (
            "ROOT %a = bf16[16,2]{0,1} all-gather(%x), replica_groups=[2,4]<=[4,2]T(1,0)",
            ("all-gather", 64, 4),
        ),
        (
            "%a = f32[16]{0} all-gather(%x), replica_groups=mesh['a'=4,'b'=1,'c'=2], "
            "device_ids=([2,4]T(1,0)) {'a', 'b'}, dimensions={0}",
            ("all-gather", 64, 4),
        ),
        # What is scattered is as large as all parts together.
        (
            "%a = f32[2]{0} reduce-scatter(%x), replica_groups=[1,8]<=[8], to_apply=%add",
            ("reduce-scatter", 64, 8),
        ),
        (
            "%a = (f32[], f32[2,3]{1,0}, /*index=2*/pred[4]{0}) all-reduce(%x, %y, %z), "
            "replica_groups={}, to_apply=%add",
            ("all-reduce", 4 + 24 + 4, 8),
        ),
    ],
)
def test_notations_of_one_collective(line, want):
    body = 'metadata={op_name="all-reduce(x)"}'
    add = "%add (p: f32[]) -> f32[] {\n  %e = f32[] add(%p, %p)\n}"
    text = f"{add}\n\nENTRY %main (x: f32[]) -> f32[] {{\n  {line}, {body}\n}}\n"
    assert scaling.collectives(text) == [scaling.Collective(*want, times=1)]


def test_a_loop_of_unknown_length_is_refused():
    inner = (
        "%inner (p: f32[4]) -> f32[4] {\n"
        "  %g = f32[4]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}\n}"
    )
    loop = "%w = f32[4]{0} while(%t), condition=%until, body=%inner"
    text = f"{inner}\n\nENTRY %main (x: f32[]) -> f32[] {{\n  {loop}\n}}\n"
    with pytest.raises(ValueError, match="unknown length"):
        scaling.collectives(text)


def test_a_ring_sends_what_the_textbook_says():
    def sent(kind, group=8):
        return scaling.Collective(kind, payload=800, group=group, times=3).sent

    assert sent("all-reduce") == 2 * sent("all-gather") == 2 * sent("reduce-scatter") == 4200
    assert sent("collective-permute") == 2400
    assert sent("all-reduce", group=1) == 0


def test_each_pass_of_a_loop_counts():
    mesh = Mesh(jax.devices()[:4], ("data",), axis_types=(AxisType.Auto,))
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def run(x, weights):  # weights [6, 12, 12], split: each pass gathers its own
        def layer(x, w):
            return jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), None

        return jax.lax.scan(layer, x, weights)[0].sum()

    x = jax.ShapeDtypeStruct((8, 12), jnp.float32, sharding=rows)
    split = NamedSharding(mesh, P(None, "data"))
    weights = jax.ShapeDtypeStruct((6, 12, 12), jnp.float32, sharding=split)
    found = scaling.collectives(jax.jit(run).lower(x, weights).compile().as_text())
    gathers = [x for x in found if x.kind == "all-gather"]
    assert sum(x.payload * x.times for x in gathers) == 6 * 12 * 12 * 4
    assert {x.group for x in found} == {4}
    assert [(x.payload, x.times) for x in found if x.kind == "all-reduce"] == [(4, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("label", ["pmap", "fsdp 8", "data 2 x fsdp 4"])
def test_a_training_step_sends_what_theory_says(label):
    sizes = {"max_length": 16, "latents": 8, "latent_channels": 128, "layers": 3, "self_heads": 2}
    narrow = {
        **dict.fromkeys(("cross_qk_channels", "self_qk_channels", "query_qk_channels"), 32),
        "embedding_channels": 64,
        "cross_heads": 2,
        "cross_v_channels": 128,
        "query_heads": 2,
    }
    spec = specs.parse(released.MODELS["masked-lm-bytes"] | sizes | narrow)
    program, state, mesh = scaling.compile_step(spec, label)
    sent = sum(x.sent for x in scaling.collectives(program.executable.as_text()))
    theory = scaling.theory(state, mesh, spec, scatters=False)
    # A few rows of positions and embeddings are small enough to be gathered as activations.
    assert sent == pytest.approx(theory, rel=2e-3 if label == "pmap" else 0.05)
    least = scaling.theory(state, mesh, spec, scatters=True)
    assert least == theory if label == "pmap" else least < theory
