"""`python -m train.evaluate` in both forms, against scikit-learn on the model's own outputs."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn

import data
import perceiver
from configs import digits, masked_lm
from data.dataset import BrokenExample
from data.images import digits as digits_data
from perceiver.weights import native
from train import evaluate, pictures

CONFIG = "--config=configs/digits.py:fourier,smoke"
SIZES = ("--config.model.layers=1", "--config.model.blocks=1")  # of `runs.small`
EXAMPLES = 599  # nine batches of 64, and 23 more


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The folder of a run, to be written into."""
    return shutil.copytree(trained("classification"), tmp_path_factory.mktemp("copy") / "run")


@pytest.fixture(scope="module")
def expected(run):
    """Metrics by scikit-learn, from the logits of all examples at once."""
    model = perceiver.load(run, batch_size=EXAMPLES)
    c = digits.get_config("fourier,smoke")
    batches = data.load(c.data, "validation", batch_size=EXAMPLES, seed=0, train=False)
    (batch,) = batches
    logits = model({"image": batch["image"]})
    probabilities = np.asarray(jax.nn.softmax(logits.astype("f8")))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == batch["label"]
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        error += abs(right[inside].sum() - confidence[inside].sum()) / EXAMPLES
    return {
        "accuracy": sklearn.accuracy_score(batch["label"], probabilities.argmax(axis=1)),
        "top_5": sklearn.top_k_accuracy_score(batch["label"], probabilities, k=5),
        "loss": sklearn.log_loss(batch["label"], probabilities),
        "calibration_error": error,
    }


def call(capsys, *words):
    evaluate.main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def assert_close(found, expected):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name


def test_a_run_is_assessed_into_its_folder(run, expected, capsys):
    found = call(capsys, run)
    assert_close(found, expected)
    assert (found["step"], found["examples"], found["broken"]) == (11, EXAMPLES, [])
    names = {path.name for path in (run / "evaluation").iterdir()}
    assert names == {"classes.csv", "confusions.png", "attention.png"}
    assert set(found["files"].values()) == {str(run / "evaluation" / name) for name in names}
    with (run / "evaluation" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["examples"]) for row in rows) == EXAMPLES
    right = sum(int(row["examples"]) * float(row["top_1"]) for row in rows)
    assert right == pytest.approx(EXAMPLES * expected["accuracy"], rel=1e-4)


@pytest.mark.parametrize("placement", ["pmap", "sharded"])
def test_any_weights_are_assessed_on_the_data_of_a_config(
    run, expected, placement, capsys, tmp_path
):
    words = (CONFIG, *SIZES, f"--weights={run}", f"--config.placement={placement}")
    found = call(capsys, *words, "--config.data.eval_batch_size=40", f"--out={tmp_path}")
    assert_close(found, expected)
    assert (found["step"], found["examples"], found["notices"]) == (None, EXAMPLES, [])
    assert (tmp_path / "confusions.png").is_file()


def test_a_run_of_a_mesh_that_is_not_here_is_assessed(run, expected, capsys, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    config = json.loads((run / "config.json").read_text())
    config |= {"placement": "sharded", "mesh": {"data": 16, "fsdp": 4, "sequence": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    evaluate.main([str(tmp_path)])  # for readers it prints lines
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{tmp_path}, step 11: 599 examples of digits"
    lines = dict(line.split()[:2] for line in told[1:])
    assert lines["accuracy"] == f"{expected['accuracy']:.4f}"
    assert float(lines["loss"]) == pytest.approx(expected["loss"], abs=1e-4)
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path), "--config.mesh.fsdp=3"])
    assert "does not match 8 devices" in capsys.readouterr().err


def test_broken_examples_and_another_use_are_named_and_nothing_is_left_behind(
    run, tmp_path, capsys, monkeypatch
):
    intact = digits_data.Digits.example

    def example(self, index, epoch):
        if index == 17:
            raise BrokenExample("cut short")
        return intact(self, index, epoch)

    monkeypatch.setattr(digits_data.Digits, "example", example)
    saved = native.load(run / "model")
    usage = saved.usage | {"labels": [*"012345678", "nine"]}
    usage["image"] = usage["image"] | {"mean": [0.5], "crop_fraction": 0.875}
    native.save(tmp_path / "model", saved.model, saved.params, saved.state, usage)
    weights = f"--weights={tmp_path / 'model'}"
    evaluate.main([CONFIG, *SIZES, weights, "--config.placement=single", "--json"])
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["examples"], found["broken"]) == (EXAMPLES - 1, ["example 17"])
    assert "broken validation example, skipped: example 17: cut short" in told.err
    assert found["files"] == {}
    mean, crop, labels = found["notices"]
    assert mean == "image.mean: the weights were used with [0.5], the data has [0.30584]"
    assert crop == "image.crop_fraction: the weights were used with 0.875, the data has 1.0"
    assert labels.startswith("labels: 1 of 10 names differ; class 9 is 'nine' there and '9' here")
    assert told.err.count("notice: ") == 3


def test_a_run_on_other_data_tells_what_differs(run, capsys, tmp_path):
    for name in ("zero", *"123456789"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(2):
            picture = np.full((9, 9), 20 * number, np.uint8)
            Image.fromarray(picture).save(tmp_path / "d" / name / f"{number}.png")
    words = [str(run), f"--config.data.source=folder:{tmp_path / 'd'}", "--json"]
    words += [f"--config.data.{split}_split=d" for split in ("train", "eval")]
    words[1] = f"--config.data.source=folder:{tmp_path}"
    evaluate.main(words)
    notices = json.loads(capsys.readouterr().out)["notices"]
    assert [notice.partition(":")[0] for notice in notices] == [
        "image.mean",
        "image.std",
        "image.crop_fraction",
        "labels",
    ]


def test_a_run_that_may_only_be_read_has_its_metrics(run, expected, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evaluate.tempfile, "TemporaryFile", refuse)
    evaluate.main([str(run), "--json"])
    told = capsys.readouterr()
    assert "evaluation cannot be written (Permission denied): name another folder by" in told.err
    found = json.loads(told.out)
    assert found["files"] == {}
    assert_close(found, {"accuracy": expected["accuracy"]})


def test_the_pictures_of_a_run_are_drawn_again(run, capsys):
    (run / "attention.png").unlink()
    pictures.main([str(run)])
    assert f"what the latents attend to: {run / 'attention.png'}" in capsys.readouterr().out
    assert (run / "attention.png").is_file()


def test_a_masked_language_model_has_perplexity_and_completions(tmp_path, capsys):
    c = masked_lm.get_config("embedded,smoke")
    perceiver.fresh(c.model.to_dict()).save(tmp_path / "model")
    words = ("--config=configs/masked_lm.py:embedded,smoke", f"--weights={tmp_path / 'model'}")
    found = call(capsys, *words, "--config.placement=single", f"--out={tmp_path / 'out'}")
    assert {"loss", "bits", "accuracy", "unigram/bits"} <= found.keys()
    assert found["perplexity"] == pytest.approx(2 ** found["bits"], rel=1e-4)
    assert found["files"].keys() == {"sources", "completions"}
    text = (tmp_path / "out" / "completions.txt").read_text()
    assert text.count("=== window") == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either the folder of a run, or --config=FILE:VARIANT with --weights"),
        (["{run}", "--weights={run}"], "either the folder of a run"),
        ([CONFIG], "either the folder of a run"),
        (["--weights={run}"], "give --config and --weights together"),
        (["{run}", CONFIG], "give --config and --weights together"),
        (["{run}", "--wieghts={run}"], "unknown arguments: --wieghts="),
        (["{run}", "--config.data.sourc=digits"], "did you mean data.source"),
        (["{run}/model"], "is not the folder of a run"),
        ([CONFIG, "--weights={run}/nothing"], "nothing"),
        (
            ["--config=configs/digits.py:perceiver,smoke", "--weights={run}"],
            "encoders: weights (0,), config.model (0, 1, 1, 1)",
        ),
        (
            [CONFIG, "--weights={run}", "--config.model.self_heads=2"],
            "self_heads: weights 4, config.model 2",
        ),
        (
            [CONFIG, "--weights={run}", "--config.model.classes=11"],
            "model.classes=11, but data set 'digits' has 10 classes",
        ),
        (
            ["--config=configs/masked_lm.py:embedded,smoke", "--weights={run}"],
            "kind: weights 'image_classifier', config.model 'masked_lm'",
        ),
    ],
)
def test_what_does_not_fit_is_named(run, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        evaluate.main([word.format(run=run) for word in words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
