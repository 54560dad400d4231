import pytest

from benchmarks import measure, plan

V5E, V5P, H100 = plan.MACHINES
PARAMETERS = 201_108_230


def test_one_level_of_links_is_a_ring():
    # 256 chips, each of which receives all but its own 256th.
    assert V5E.gather(7e9, 256) == pytest.approx(7e9 * 255 / 256 / 200e9 / plan.LINKS)
    assert V5E.gather(7e9, 1) == 0


def test_nodes_exchange_at_the_speed_of_their_network():
    inside = 7e9 * 7 / 8 / 450e9
    assert H100.gather(7e9, 8) == pytest.approx(inside / plan.LINKS)
    # Each of the eight collects an eighth of the whole from 31 other nodes.
    outside = 7e9 / 8 * 31 / 32 / 50e9
    assert H100.gather(7e9, 256) == pytest.approx((inside + outside) / plan.LINKS)
    across = 7e9 * 31 / 32 / 50e9
    assert H100.gather(7e9, 32, across=True) == pytest.approx(across / plan.LINKS)


def test_data_parallelism_by_hand():
    found = plan.estimate("masked-lm-bytes", V5E, "pmap")
    assert found.examples == 8
    assert found.state == 3 * 4 * PARAMETERS
    assert found.temp == plan.TEMP_GIB["masked-lm-bytes"] * plan.GIB
    assert found.compute == pytest.approx(8 * 3 * 120.949e9 / (0.4 * 197e12), rel=1e-4)
    sent = 2 * 255 / 256 * 4 * PARAMETERS
    assert found.exchange == pytest.approx(sent / 200e9 / 0.7)
    assert found.mfu == pytest.approx(0.4 * found.compute / found.step)
    # At break-even, half of the time is the exchange.
    assert found.break_even == pytest.approx(8 * found.exchange / found.compute)


def test_fully_sharded_holds_a_part_and_sends_more():
    copies, parts, mixed = (
        plan.estimate("masked-lm-bytes", V5E, label) for label in plan.PLACEMENTS
    )
    assert parts.state < mixed.state < copies.state / 7
    assert parts.temp < mixed.temp < copies.temp
    # Gathered twice, scattered once: three rings where an all-reduce is two.
    assert parts.exchange == pytest.approx(1.5 * copies.exchange, rel=0.05)
    assert parts.compute == copies.compute


def test_weights_used_eight_times_are_gathered_eight_times():
    copies, parts, _ = (plan.estimate("imagenet-fourier", V5E, label) for label in plan.PLACEMENTS)
    assert parts.exchange / copies.exchange == pytest.approx(9.5, abs=0.5)


def test_the_document_holds_these_numbers():
    document = (measure.ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in plan.tables():
        assert table in document, "write the tables of `python -m benchmarks.plan` into it"
