import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import forms, measure, table

MIB = 2**20


def test_temporary_memory_is_what_a_program_holds_beside_arguments_and_results():
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)  # 4 MiB
    assert measure.compile_program(lambda x: x @ x, x).temp_mib < 0.1
    assert 4 <= measure.compile_program(lambda x: jnp.tanh(x @ x) @ x, x).temp_mib < 4.1


def test_donated_arguments_hold_the_results():
    x = jnp.ones((1024, 1024))
    program = measure.compile_program(lambda x: x + 1, x, donate=(0,))
    assert float(program()[0, 0]) == 2
    assert x.is_deleted()


def test_a_race_runs_all_in_turn_and_forth_and_back():
    calls = []

    def runner(name):
        def run():
            calls.append(name)
            return f"{name} {len(calls)}"

        return run

    timings = measure.race({"a": runner("a"), "b": runner("b")}, rounds=3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert [len(t.walls) for t in timings.values()] == [3, 3]
    assert timings["b"].result == "b 2"  # of the first round


def test_the_ratio_is_of_rounds_not_of_medians():
    # Half of the machine is gone in the second round: both slow down, their ratio does not.
    assert measure.median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.1]) == 2
    # One round of three was disturbed.
    assert measure.median_ratio([2.0, 2.0, 2.0], [1.0, 9.0, 1.0]) == 2


def test_time_is_told_from_cpu_time():
    timing = measure.race({"sleep": lambda: time.sleep(0.2)}, rounds=1)["sleep"]
    assert timing.wall >= 0.2
    assert timing.cpu < 0.1


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
    near["a/attention/key"]["w"] += 3
    assert measure.relative_error(near, truth) == pytest.approx(3)


def test_a_child_does_not_report_its_parents_memory():
    here = np.ones(300 * MIB, np.uint8)
    assert measure.peak_resident_mib() > 300
    code = (
        "from benchmarks import measure; import numpy as np; a = measure.peak_resident_mib();"
        "x = np.ones(64 * 2**20, np.uint8); print(a, measure.peak_resident_mib())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=measure.ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    before, after = map(float, printed)
    assert before < 300 <= here.size / MIB
    assert 60 < after - before < 80


def test_a_failing_process_is_not_silent():
    with pytest.raises(RuntimeError, match=r"(?s)benchmarks\.scaling --resident.*invalid choice"):
        measure.in_fresh_process("benchmarks.scaling", "--resident", "nothing")


DENSE, OURS = forms.DENSE, forms.Form("ours")


@pytest.fixture
def options():
    return table.parser("").parse_args(["--rounds", "1"])


def contenders():
    x = jnp.eye(512) + 0.1
    return {
        DENSE: (lambda x: jnp.tanh(x @ x) @ x, (x,)),
        OURS: (lambda x: (x.T @ jnp.tanh(x.T @ x.T)).T, (x,)),
    }


def test_rows_refer_to_the_dense_form(options):
    options.memory = 1
    gflop = {"dense": 8.0, "ours": 4.0, "least": 2.0}.get
    dense, ours = forms.compare(
        contenders(), gflop=gflop, options=options, case="sums", work="forward"
    )
    assert (dense.form, dense.wall_ratio, dense.error, dense.temp_ratio) == ("dense",) + (None,) * 3
    assert (ours.case, ours.work, ours.gflop, ours.floor_gflop) == ("sums", "forward", 4, 2)
    assert ours.wall_ratio == pytest.approx(dense.wall_s / ours.wall_s)
    assert ours.temp_ratio == pytest.approx(dense.temp_mib / ours.temp_mib)
    assert 0 < ours.error < 1e-5


def test_what_needs_too_much_memory_is_weighed_and_not_run(options):
    options.memory = 2**-14  # 64 KiB
    rows = forms.compare(
        contenders(), gflop=lambda form: 1.0, options=options, case="sums", work="forward"
    )
    assert [row.wall_s for row in rows] == [None, None]
    assert all(row.temp_mib > 0 and "not run" in row.note for row in rows)


def test_rows_are_printed_and_written_with_the_machine(tmp_path, capsys, monkeypatch):
    path = tmp_path / "x.json"
    words = ["imagenet", "--rounds", "2", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["attention.py", *words])
    parser = table.parser("")
    parser.add_argument("names", nargs="*")
    report = table.Report(parser.parse_args(words))
    report.add(table.Row(case="a", work="forward", form="dense", wall_s=0.125, temp_mib=1234.5))
    report.write("attention")
    printed = capsys.readouterr().out
    assert f"jax {jax.__version__}" in printed
    assert "platform cpu" in printed
    assert "1,234.5" in printed
    found = json.loads(path.read_text())
    assert found["command"] == "python -m benchmarks.attention imagenet --rounds 2"
    assert found["settings"] == {"smoke": False, "rounds": 2, "names": ["imagenet"]}
    assert found["environment"]["jax"] == jax.__version__
    assert found["rows"] == [
        {"case": "a", "work": "forward", "form": "dense", "dtype": "float32"}
        | {"wall_s": 0.125, "temp_mib": 1234.5}
    ]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown nets; choose from a, b"):
        table.chosen(["a", "b"], ["nets"])
    assert table.chosen(["a", "b"], []) == ["a", "b"]
    assert table.chosen(["a", "b"], ["b"]) == ["b"]
