"""How time, memory and the machine are measured, and that tables say it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import measure


def test_temporary_memory_is_what_a_program_holds_beside_arguments_and_results():
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)  # 4 MiB
    assert measure.compile_program(lambda x: x @ x, x).temp_mib < 0.1
    assert 4 <= measure.compile_program(lambda x: jnp.tanh(x @ x) @ x, x).temp_mib < 4.1


def test_a_race_runs_all_in_turn_after_an_uncounted_round():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    timings = measure.race(runs, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert [len(t.walls) for t in timings.values()] == [3, 3]


def test_the_ratio_is_of_rounds_not_of_medians():
    # Half of the machine is gone in the second round: both slow down, their ratio does not.
    assert measure.median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.1]) == 2


def test_the_error_is_of_the_worst_leaf_and_spares_key_biases():
    truth = {
        "a/attention/query": {"w": np.full(4, 10.0), "b": np.ones(4)},
        "a/attention/key": {"w": np.ones(4), "b": np.zeros(4)},
    }
    near = jax.tree.map(np.copy, truth)
    near["a/attention/key"]["b"] += 5
    assert measure.relative_error(near, truth) == 0
    near["a/attention/query"]["b"][0] += 0.2
    assert measure.relative_error(near, truth) == pytest.approx(0.1)


def test_rows_refer_to_the_first_and_what_needs_too_much_memory_is_not_run():
    x = jnp.eye(512) + 0.1
    contenders = {
        "dense": (lambda x: jnp.tanh(x @ x) @ x, (x,)),
        "ours": (lambda x: (x.T @ jnp.tanh(x.T @ x.T)).T, (x,)),
    }
    rows = measure.compare(contenders, rounds=1)
    assert "wall x" not in rows["dense"]
    assert rows["ours"]["wall x"] == pytest.approx(rows["dense"]["wall s"] / rows["ours"]["wall s"])
    assert 0 < rows["ours"]["rel. error"] < 1e-5
    rows = measure.compare(contenders, rounds=1, memory_gib=2**-14)  # 64 KiB
    assert all("wall s" not in row and row["temp MiB"] > 0 for row in rows.values())


def test_two_threads_of_a_core_are_one_core(tmp_path):
    for number, (package, core) in enumerate([(0, 0), (0, 1), (0, 0), (1, 0)]):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n")
        (folder / "core_id").write_text(f"{core}\n")
    assert measure.physical_cores(tmp_path, range(4)) == 3
    assert measure.physical_cores(tmp_path, [0, 2]) == 1
    assert measure.physical_cores(tmp_path, range(5)) is None  # not reported


def test_the_machine_is_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    text = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.0\n"
    cpuinfo.write_text(text)
    assert measure.cpu_model(cpuinfo) == "Some CPU @ 2.0 (cpu family 6, model 85)"
    line = measure.machine()
    assert measure.cpu_model() in line
    assert "physical cores" in line
    assert f"jax {jax.__version__}" in line


def test_a_table_has_the_columns_that_some_row_fills():
    rows = [
        {"case": "a", "wall s": 0.12345, "n": 1234},
        {"case": "b", "temp MiB": 1234.5, "x": None},
    ]
    lines = measure.table(rows).splitlines()
    assert lines[0] == "| case | wall s | n | temp MiB |"
    assert lines[2:] == ["| a | 0.123 | 1,234 |  |", "| b |  |  | 1,234 |"]


def test_a_process_that_fails_is_noticed():
    with pytest.raises(RuntimeError, match=r"benchmarks\.nothing ended early with code 1"):
        measure.Worker("benchmarks.nothing", [])
