import json
import subprocess
import sys

import jax
import pytest

from perceiver import describe
from perceiver.kinds.released import MODELS
from perceiver.summary import summarize
from perceiver.weights import native

TINY = {
    "kind": "image_classifier",
    "image_shape": [13, 17, 3],
    "classes": 11,
    "latents": 5,
    "latent_channels": 16,
    "layers": 3,
    "bands": 2,
    "query_channels": 7,
}


def run_json(capsys, *argv: str) -> dict:
    describe.main([*argv, "--json"])
    return json.loads(capsys.readouterr().out)


def run_folder(folder, config) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(folder)


@pytest.fixture
def tiny(tmp_path) -> str:
    return run_folder(tmp_path / "run", {"task": "classification", "model": TINY})


@pytest.mark.parametrize("name", MODELS)
def test_report_fits_the_terminal_and_says_what_json_says(name, summary_of):
    found = summary_of(name)
    report = describe.render(name, found)
    assert max(map(len, report.splitlines())) <= describe.WIDTH
    assert report.isascii()
    assert f"PARAMETERS  {found['parameters']['total']:,}" in report
    assert f"{found['flops']['per_example'] / 1e9:,.3f} GFLOP per example" in report
    assert f"[{found['byte_array']['size']}, {found['byte_array']['channels']}]" in report
    for module in found["parameters"]["modules"]:
        assert f"  {module['path']} " in report


def test_the_report_and_json_are_of_the_summary(tiny, capsys):
    found = summarize(TINY, batch_size=7, depth=2)
    options = [tiny, "--batch", "7", "--depth", "2"]
    describe.main(options)
    assert capsys.readouterr().out == describe.render(tiny, found) + "\n"
    assert run_json(capsys, *options) == {"name": tiny} | json.loads(json.dumps(found))


def test_no_array_is_made(capsys):
    before = len(jax.live_arrays())
    describe.main(["vit-b-16"])
    assert len(jax.live_arrays()) == before


def test_json_keys_are_stable(capsys):
    found = run_json(capsys, "imagenet-conv", "--batch", "2")
    assert found["name"] == "imagenet-conv"
    assert list(found) == [
        "name",
        "spec",
        "batch_size",
        "inputs",
        "byte_array",
        "latents",
        "stages",
        "paths",
        "outputs",
        "parameters",
        "flops",
        "memory",
        "compiled",
    ]
    assert found["inputs"] == {"image": {"shape": [2, 224, 224, 3], "dtype": "float32"}}
    assert found["byte_array"] == {
        "size": 3136,
        "channels": 322,
        "segments": [
            {
                "name": "image",
                "dims": [56, 56],
                "content_channels": 64,
                "positions": "SeparableFourier",
                "position_channels": 258,
                "constant_channels": 0,
                "masked": False,
            }
        ],
    }
    assert found["latents"] == {"size": 512, "channels": 1024}
    assert found["stages"] == [{"encoder": 0, "processor": 0}]
    assert found["outputs"] == {"shape": [2, 1000], "dtype": "float32"}
    assert found["parameters"]["total"] == 48_646_522
    assert (
        found["parameters"]["state"] == 4 * 64 + 2
    )  # two averages, hidden and shown; two counters
    assert found["compiled"] is None


@pytest.fixture(scope="module")
def summarised() -> dict:
    """The summary of TINY, as JSON has it."""
    return json.loads(json.dumps(summarize(TINY)))


@pytest.mark.parametrize("depth", ["1", "9"])
def test_modules_add_up_at_any_depth(depth, tmp_path, capsys):
    stages = {"encoders": (0, 1, 2), "processors": (0, 1, 2)}
    folder = run_folder(tmp_path / "run", {"model": TINY | stages})
    found = run_json(capsys, folder, "--depth", depth)["parameters"]
    paths = [module["path"] for module in found["modules"]]
    assert len(set(paths)) == len(paths)
    assert sum(module["parameters"] for module in found["modules"]) == found["total"]
    assert max(path.count("/") for path in paths) < int(depth)


def test_modules_come_in_the_order_of_the_data(summary_of):
    modules = summary_of("perceiver-imagenet")["parameters"]["modules"]
    paths = list(dict.fromkeys(module["path"].split("/")[0] for module in modules))
    assert paths == ["latents", "encoder", "encoder_1", "processor", "outputs"]


def test_a_stack_lists_the_matrices_of_one_layer(summarised):
    modules = summarised["parameters"]["modules"]
    (stack,) = [module for module in modules if module["path"] == "processor/layers/self_attend"]
    assert stack["layers"] == 3
    assert stack["matrices"]["attend/attention/query/w"] == [16, 16]
    # four attention and two MLP matrices with biases, two norms
    assert stack["parameters"] == 3 * (6 * (16 * 16 + 16) + 2 * 2 * 16)


def test_repeated_weights_are_named_once(summary_of):
    report = describe.render("perceiver-imagenet", summary_of("perceiver-imagenet"))
    assert "as encoder/cross_attend/feed_forward" in report
    assert "use weights 0, 1, 1, 1, 1, 1, 1, 1\n" in report


def test_memory_is_counted_in_bytes():
    found = summarize(TINY, batch_size=7)
    memory, channels = found["memory"], 3 + 2 * (2 * 2 + 1)
    assert memory["parameters"] == memory["gradients"] == 4 * found["parameters"]["total"]
    assert memory["optimizer_state"] == 2 * memory["parameters"]
    assert memory["byte_array_per_example"] == 4 * 13 * 17 * channels
    assert memory["cross_attention_logits_per_example"] == 4 * 5 * 13 * 17
    for key in ("byte_array", "cross_attention_logits"):
        assert memory[f"{key}_batch"] == 7 * memory[f"{key}_per_example"]


def test_bfloat16_halves_the_byte_array_and_not_the_parameters(summarised):
    full, half = summarised, summarize(TINY | {"dtype": "bfloat16"})
    assert 2 * half["memory"]["byte_array_per_example"] == full["memory"]["byte_array_per_example"]
    logits = "cross_attention_logits_per_example"  # softmax is float32
    assert half["memory"][logits] == full["memory"][logits]
    assert half["memory"]["parameters"] == full["memory"]["parameters"]


def test_compile_reports_xlas_memory(tiny, capsys):
    found = run_json(capsys, tiny, "--compile", "--batch", "2")
    compiled = found["compiled"]
    assert compiled["platform"] == jax.default_backend()
    assert compiled["output_bytes"] >= 4 * 2 * 11
    images = 4 * 2 * 13 * 17 * 3
    assert compiled["argument_bytes"] >= found["memory"]["parameters"] + images
    assert compiled["temp_bytes"] > 0
    assert "batch of 2: temp" in describe.render(found.pop("name"), found)


def test_a_run_and_its_exported_model_are_the_same(tmp_path, draw_saved, summarised, capsys):
    saved = draw_saved(TINY)
    native.save(tmp_path / "model", saved.model, saved.params, saved.state)
    exported = run_json(capsys, str(tmp_path / "model"))
    assert exported.pop("name").endswith("model")
    assert exported == summarised
    total = sum(x.size for x in jax.tree.leaves(saved.params))
    assert exported["parameters"]["total"] == total


def test_a_small_model_is_counted_in_millions(summarised):
    expected = f"{summarised['flops']['per_example'] / 1e6:,.3f} MFLOP per example"
    assert expected in describe.render("tiny", summarised)


def error_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as error:
        describe.main(argv)
    assert error.value.code == 2
    return capsys.readouterr().err


def test_an_unknown_name_lists_the_names(capsys):
    message = error_of(capsys, "imagnet-conv")
    assert "did you mean imagenet-conv" in message
    assert "WORKDIR" in message
    for name in MODELS:
        assert name in message


def test_a_name_like_no_other_gets_no_guess(capsys):
    message = error_of(capsys, "zzz")
    assert "'zzz' is neither" in message
    assert "did you mean" not in message


def test_a_folder_without_config_names_the_file(tmp_path, capsys):
    assert f"{tmp_path / 'config.json'} is missing" in error_of(capsys, str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "broken file: "),
        ([], "JSON, but not an object"),
        ({"task": "x"}, "does not describe a model"),
        ({"model": TINY | {"kind": "resnet"}}, "'resnet'"),
        ({"model": TINY | {"latent": 5}}, "did you mean 'latents'"),
        ({"model": TINY | {"latents": "five"}}, '"model"'),
        ({"model": TINY | {"self_heads": 3}}, "must be a multiple of self_heads=3"),
        ({"model": TINY | {"cross_heads": 2}}, "are not divisible by 2 heads"),
    ],
)
def test_a_broken_config_is_refused(tmp_path, config, message, capsys):
    folder = run_folder(tmp_path / "broken", config)
    assert message in error_of(capsys, folder)


@pytest.mark.parametrize("argv", [["--batch", "0"], ["--depth", "x"]])
def test_counts_must_be_positive(argv, capsys):
    assert f"must be a positive integer, not {argv[1]!r}" in error_of(
        capsys, "imagenet-fourier", *argv
    )


def test_runs_as_a_program():
    command = [sys.executable, "-m", "perceiver.describe"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "examples:" in shown
    for name in MODELS:
        assert name in shown
