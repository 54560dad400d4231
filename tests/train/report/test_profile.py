import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from train.report.profile import Profile


@pytest.fixture
def calls(monkeypatch):
    """What the profiler was asked, in place of asking it."""
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: found.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


def walk(profile, steps, calls):
    """The profiler's calls before each step."""
    seen = {}
    for step in steps:
        before = len(calls)
        profile.at(step)
        if calls[before:]:
            seen[step] = calls[before:]
    return seen


@pytest.mark.parametrize(
    ("span", "remedy"),
    [
        ("5", "write --profile=100:105"),
        ("a:b", "write --profile=100:105"),
        ("-1:5", "write --profile=100:105"),
        ("5:", "write --profile=100:105"),
        ("7:7", "write --profile=7:12"),
        ("9:7", "write --profile=9:14"),
        ("90:101", "let STOP be at most 100"),
    ],
)
def test_spans_that_cannot_be_are_refused(tmp_path, span, remedy):
    with pytest.raises(ValueError, match=remedy):
        Profile(span, tmp_path, steps=100)


def test_the_span_is_traced_and_no_more(tmp_path, calls):
    told = []
    with Profile("3:5", tmp_path, steps=10, log=told.append) as profile:
        seen = walk(profile, range(11), calls)
    assert seen == {3: [str(tmp_path / "profile")], 5: ["stop"]}
    assert told == [f"profile of steps 3 to 5: {tmp_path / 'profile'}"]


@pytest.mark.parametrize(
    ("first", "seen"), [(4, {4: 1, 6: 1}), (6, {}), (50, {}), (0, {3: 1, 6: 1})]
)
def test_a_resumed_run_traces_what_is_left_of_the_span(tmp_path, calls, first, seen):
    with Profile("3:6", tmp_path) as profile:
        found = walk(profile, range(first, first + 10), calls)
    assert {step: len(asked) for step, asked in found.items()} == seen


def test_a_run_that_dies_inside_ends_the_trace(tmp_path, calls):
    def die():
        with Profile("3:6", tmp_path) as profile:
            profile.at(3)
            raise RuntimeError("the run died")

    with pytest.raises(RuntimeError, match="the run died"):
        die()
    assert calls == [str(tmp_path / "profile"), "stop"]


def test_no_span_and_other_hosts_trace_nothing(tmp_path, calls):
    with Profile("", tmp_path) as none, Profile("1:2", tmp_path, active=False) as other:
        walk(none, range(4), calls)
        walk(other, range(4), calls)
    assert calls == []


def test_a_trace_waits_for_the_step_before(tmp_path, calls):
    class Outputs:
        def block_until_ready(self):
            calls.append("waited")
            return self

    with Profile("1:2", tmp_path) as profile:
        for step in range(4):
            profile.at(step, Outputs())
    assert calls == ["waited", str(tmp_path / "profile"), "waited", "stop"]


def test_a_trace_file_comes_out(tmp_path):
    @jax.jit
    def a_step_to_be_found(x):
        return jnp.sin(x @ x)

    x = jax.block_until_ready(a_step_to_be_found(jnp.ones((64, 64))))
    with Profile("1:3", tmp_path) as profile:
        for step in range(5):
            profile.at(step, x)
            x = a_step_to_be_found(x)
    (path,) = (tmp_path / "profile").rglob("*.trace.json.gz")
    names = [
        event.get("name", "")
        for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    ]
    assert sum("a_step_to_be_found" in name for name in names) >= 2
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
