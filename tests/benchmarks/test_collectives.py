"""The reading of HLO, on texts made by hand; then tiny training steps beside the theory."""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import collectives, hlo
from perceiver.kinds import released, specs

HEADER = "HloModule jit_step, is_scheduled=true, num_partitions=8, entry_computation_layout={}"


def program(*lines, others="", header=HEADER):
    body = "\n".join(f"  {line}" for line in lines)
    return f"{header}\n\n{others}\n\nENTRY %main (x: f32[]) -> f32[] {{\n{body}\n}}\n"


def read(*lines, **options):
    return hlo.collectives(program(*lines, **options))


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (
            "%a = f32[3,5]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}"
            ", use_global_device_ids=true, to_apply=%add",
            ("all-reduce", 60, 4),
        ),
        (
            "ROOT %a = bf16[16,2]{0,1} all-gather(%x), replica_groups=[2,4]<=[4,2]T(1,0), "
            "dimensions={0}",
            ("all-gather", 64, 4),
        ),
        (
            "%a = f32[16]{0} all-gather(%x), replica_groups=mesh['axis_0'=1,'axis_1'=8] "
            "{'axis_1'}, dimensions={0}",
            ("all-gather", 64, 8),
        ),
        (
            "%a = f32[16]{0} all-gather(%x), replica_groups=mesh['a'=4,'b'=1,'c'=2], "
            "device_ids=([2,4]T(1,0)) {'a', 'b'}, dimensions={0}",
            ("all-gather", 64, 4),
        ),
        # What is scattered is as large as all parts together.
        (
            "%a = f32[2]{0} reduce-scatter(%x), replica_groups=[1,8]<=[8], dimensions={0}, "
            "to_apply=%add",
            ("reduce-scatter", 64, 8),
        ),
        (
            "%a = (f32[], f32[2,3]{1,0}, /*index=2*/pred[4]{0}) all-reduce(%x, %y, %z), "
            "replica_groups={}, to_apply=%add",
            ("all-reduce", 4 + 24 + 4, 8),
        ),
        (
            "%a = (f32[2]{0}, f32[16]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8]",
            ("all-gather", 64, 8),
        ),
        (
            "%a = ((f32[2]{0}, s8[1]{0}), (f32[16]{0}, s8[8]{0})) all-gather-start(%x, %y), "
            "replica_groups=[1,8]<=[8]",
            ("all-gather", 72, 8),
        ),
        (
            "%a = (s32[7]{0}, s32[7]{0}, u32[], u32[]) collective-permute-start(%x), "
            "source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 28, 8),
        ),
    ],
)
def test_notations_of_one_collective(line, want):
    assert read(line) == [hlo.Collective(*want, times=1)]


def test_what_is_no_collective_or_its_end_is_passed_over():
    lines = [
        "%d = f32[16]{0} all-gather-done(%a)",
        '%e = f32[16]{0} add(%x, %y), metadata={op_name="all-reduce(x)"}',
        "%p = s32[] partition-id()",
    ]
    assert read(*lines) == []


LOOPS = """%inner (p: f32[4]) -> f32[4] {
  %g = f32[4]{0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}

%until (p: f32[4]) -> pred[] {
  %limit = s32[] constant(5)
  ROOT %c = pred[] compare(%i, %limit), direction=LT
}

%body (p: f32[4]) -> f32[4] {
  %w = f32[4]{0} while(%p), condition=%until, body=%inner
  %r = f32[4]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
}"""


def test_loops_within_loops_multiply():
    line = (
        "%w = (s32[], f32[4]{0}) while(%t), condition=%until, body=%body, "
        'backend_config={"known_trip_count":{"n":"3"}}'
    )
    found = {x.kind: x.times for x in read(line, others=LOOPS)}
    assert found == {"all-gather": 15, "all-reduce": 3}  # the inner one tells by its condition


def test_calls_are_followed_and_of_branches_the_costliest_counts():
    others = (
        LOOPS
        + """

%cheap (p: f32[4]) -> f32[4] {
  %r = f32[1]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add
}"""
    )
    lines = [
        "%c = f32[4]{0} call(%x), to_apply=%inner",
        "%b = f32[4]{0} conditional(%i, %x, %y), branch_computations={%cheap, %inner}",
        "%f = f32[4]{0} conditional(%i, %x, %y), true_computation=%cheap, false_computation=%inner",
    ]
    assert [x.kind for x in read(*lines, others=others)] == ["all-gather"] * 3


def test_a_loop_of_unknown_length_is_refused():
    others = LOOPS.replace("constant(5)", "parameter(0)")
    with pytest.raises(ValueError, match="does not tell how often it runs"):
        read("%w = f32[4]{0} while(%t), condition=%until, body=%inner", others=others)
    # Without a collective inside it does not matter.
    others = others.replace("all-gather", "negate")
    assert read("%w = f32[4]{0} while(%t), condition=%until, body=%inner", others=others) == []


@pytest.mark.parametrize("line", ["", "%a = f32[3]{0} all-reduce(%x), replica_groups=@new"])
def test_what_cannot_be_read_is_refused(line):
    text = program(line) if line else "nothing"
    with pytest.raises(ValueError, match=r"replica_groups|no ENTRY"):
        hlo.collectives(text)


def test_a_ring_sends_what_the_textbook_says():
    def sent(kind, group=8):
        return hlo.Collective(kind, payload=800, group=group, times=3).wire

    assert sent("all-reduce") == 2 * sent("all-gather") == 2 * sent("reduce-scatter") == 4200
    assert sent("collective-permute") == 2400
    assert sent("all-reduce", group=1) == 0


def test_a_real_program_with_a_loop():
    mesh = Mesh(jax.devices()[:4], ("data",), axis_types=(AxisType.Auto,))
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def run(x, weights):  # weights [6, 12, 12], split: each pass gathers its own
        def layer(x, w):
            return jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), None

        return jax.lax.scan(layer, x, weights)[0].sum()

    x = jax.ShapeDtypeStruct((8, 12), jnp.float32, sharding=rows)
    split = NamedSharding(mesh, P(None, "data"))
    weights = jax.ShapeDtypeStruct((6, 12, 12), jnp.float32, sharding=split)
    found = hlo.collectives(jax.jit(run).lower(x, weights).compile().as_text())
    gathers = [x for x in found if x.kind == "all-gather"]
    assert sum(x.payload * x.times for x in gathers) == 6 * 12 * 12 * 4
    assert {x.group for x in found} == {4}
    assert [(x.payload, x.times) for x in found if x.kind == "all-reduce"] == [(4, 1)]


@pytest.fixture(scope="module")
def tiny():
    """A tiny model of bytes whose matrices are large enough to be split."""
    sizes = {"max_length": 16, "latents": 8, "latent_channels": 128, "layers": 3, "self_heads": 2}
    narrow = {
        "embedding_channels": 64,
        "cross_heads": 2,
        "cross_qk_channels": 32,
        "cross_v_channels": 128,
        "self_qk_channels": 32,
        "query_heads": 2,
        "query_qk_channels": 32,
    }
    return specs.parse(released.MODELS["masked-lm-bytes"] | sizes | narrow)


def compare(spec, label):
    step = collectives.compile_step(spec, *collectives.PLACEMENTS[label])
    found = collectives.Exchange.of(hlo.collectives(step.text))
    return found, collectives.expected(step, spec, scatters=False), step


def test_data_parallelism_reduces_each_gradient_once(tiny):
    found, theory, step = compare(tiny, "pmap")
    parameters = sum(x.size for x in jax.tree.leaves(step.state.params))
    assert theory == (0, 4 * parameters, 0, 2 * 7 / 8 * 4 * parameters)
    assert found.gathered == 0
    assert found.sent == pytest.approx(theory.sent, rel=2e-3)  # and the metrics
    assert collectives.expected(step, tiny, scatters=True) == theory  # nothing is in parts


@pytest.mark.slow
@pytest.mark.parametrize(("label", "remat"), [("fsdp 8", "dots"), ("data 2 x fsdp 4", "none")])
def test_fully_sharded_gathers_at_each_use_and_reduces_once(tiny, label, remat):
    spec = dataclasses.replace(tiny, remat=remat)
    found, theory, step = compare(spec, label)
    # A few rows of positions and embeddings are small enough to be gathered as activations.
    assert found.gathered == pytest.approx(theory.gathered, rel=0.05)
    assert found.reduced == pytest.approx(theory.reduced, rel=0.05)
    assert found.sent == pytest.approx(theory.sent, rel=0.05)
    scattered = collectives.expected(step, spec, scatters=True)
    assert scattered[:3] == theory[:3]
    assert scattered.sent < theory.sent


@pytest.mark.slow
def test_weights_that_blocks_share_are_gathered_by_each():
    options = argparse.Namespace(smoke=True)
    spec = collectives.models.get_spec("imagenet-fourier", options, latent_channels=128, blocks=3)
    found, theory, step = compare(spec, "fsdp 8")
    split = [
        (row.path, row.bytes_total)
        for row in collectives.sharding.sharding_table(step.state)
        if row.path.startswith("params/") and row.bytes_total > row.bytes_per_device
    ]
    shared = sum(size for path, size in split if "processor" in path)
    once = sum(size for path, size in split if "processor" not in path)
    assert theory.gathered == 2 * 3 * shared + once
    assert found.gathered == pytest.approx(theory.gathered, rel=0.05)
    assert found.reduced == pytest.approx(theory.reduced, rel=0.05)


@pytest.mark.slow
def test_a_sequence_exchanges_what_its_merges_do_whatever_its_length(tiny):
    sizes = {"latents": 64, "cross_path": "streaming"}
    spec = dataclasses.replace(tiny, max_length=64, **sizes)
    found, theory, step = compare(spec, "sequence 8")
    assert theory.gathered == found.gathered == 4 * 64 * 64  # positions' gradient
    assert found.reduced == pytest.approx(theory.reduced, rel=0.05)
    longer = dataclasses.replace(tiny, max_length=1024, **sizes)
    assert collectives.expected(step, longer, scatters=True).reduced == theory.reduced


@pytest.mark.slow
def test_under_fully_sharded_each_micro_batch_exchanges_anew(tiny):
    step = collectives.compile_step(tiny, *collectives.PLACEMENTS["fsdp 8"], 4, micro_batches=4)
    found = collectives.Exchange.of(hlo.collectives(step.text))
    once = collectives.expected(step, tiny, scatters=False)
    assert 3 < found.sent / once.sent < 4.3
