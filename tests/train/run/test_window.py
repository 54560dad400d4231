import math

import pytest

from train.devices import placement as placement_lib
from train.objective import metrics
from train.run.window import MetricWindow, NonFiniteError

NAN = math.nan


def sums(loss, skipped_by=None):
    """Sums of a step, with `skipped_by` as a step that may skip makes them."""
    pairs = {"loss": (2 * loss, 2.0), "grad_norm": (1.0, 1.0)}
    if skipped_by is None:
        return pairs
    if skipped_by:
        pairs = dict.fromkeys(pairs, (0.0, 0.0))
    return pairs | {"skipped": (float(skipped_by > 0), 1.0), "skipped_by": (skipped_by, 1.0)}


@pytest.fixture
def placement():
    return placement_lib.make("single")


def test_means_leave_skipped_steps_out(placement):
    said, seen = [], []
    window = MetricWindow(
        placement, max_skips=2, check_loss=lambda *x: seen.append(x), log=said.append
    )
    for step, (loss, cause) in enumerate([(3.0, 0), (NAN, 1), (NAN, 3), (5.0, 0)], start=1):
        window.add(step, sums(loss, cause))
    window.totals()
    assert window.flush() == {"loss": 4.0, "grad_norm": 1.0, "skipped": 0.5}
    assert seen == [(1, 3.0), (4, 5.0)]
    assert said == [
        "skipped step 2: loss not finite; parameters are unchanged; "
        "1 of at most 2 skips before the next log line",
        "skipped step 3: loss and gradient not finite; parameters are unchanged; "
        "2 of at most 2 skips before the next log line",
    ]
    assert window.totals() == {}


def test_too_many_skips_end_the_run_also_across_a_resume(placement):
    first = MetricWindow(placement, max_skips=2)
    for step, cause in enumerate([4, 0, 4], start=1):
        first.add(step, sums(1.0, cause))
    resumed = MetricWindow(
        placement, {name: list(x) for name, x in first.totals().items()}, max_skips=2
    )
    resumed.add(4, sums(1.0, 0))
    resumed.totals()
    resumed.add(5, sums(1.0, 4))
    for _ in range(2):  # asked again, it does not forget
        with pytest.raises(
            NonFiniteError, match=r"step 5 \(update not finite\).*step 3 .*max_skips=2"
        ):
            resumed.totals()


def test_a_log_line_starts_a_new_count(placement):
    window = MetricWindow(placement, max_skips=1)
    for step in range(1, 6):
        window.add(step, sums(1.0, step % 2))
        assert window.flush()["skipped"] == step % 2


@pytest.mark.parametrize(("before", "after"), [(None, 0), (0, None)])
def test_the_guard_may_change_within_a_window(placement, before, after):
    first = MetricWindow(placement)
    first.add(1, sums(1.0, before))
    second = MetricWindow(placement, first.totals())
    second.add(2, sums(3.0, after))
    means = second.flush()
    assert means == {"loss": 2.0, "grad_norm": 1.0, "skipped": 0.0}


def test_without_skipping_the_first_broken_step_is_named(placement):
    window = MetricWindow(placement)
    for step, loss in enumerate([1.0, NAN, NAN], start=7):
        window.add(step, sums(loss))
    with pytest.raises(NonFiniteError, match=r"step 8: \{.*'loss': nan"):
        window.totals()


def test_spikes_are_said_and_batches_without_weight_are_none(placement):
    said = []
    window = MetricWindow(
        placement, check_loss=lambda step, loss: f"{step}: {loss}", log=said.append
    )
    window.add(1, sums(2.5))
    window.add(2, {"loss": (0.0, 0.0), "grad_norm": (0.0, 1.0)})
    assert metrics.means(window.totals()) == {"loss": 2.5, "grad_norm": 0.5}
    assert said == ["1: 2.5"]


def test_a_negative_limit_is_refused(placement):
    with pytest.raises(ValueError, match=r"guard\.max_skips=-1"):
        MetricWindow(placement, max_skips=-1)
