"""Models without latents are trained, shown, exported and evaluated like all image classifiers."""

import numpy as np
import pytest
from ml_collections import ConfigDict

import perceiver
import train.loop
from configs import digits
from perceiver.kinds import specs
from perceiver.weights import native

MODELS = {
    "resnet": {
        "kind": "image_resnet",
        "blocks_per_stage": (1, 1),
        "stage_channels": (4, 8),
        "stem": "small",
        "positions": "fourier",
        "bands": 2,
    },
    "transformer": {
        "kind": "image_transformer",
        "layers": 1,
        "channels": 16,
        "heads": 2,
        "patch_size": 2,
        "bands": 2,
    },
}


@pytest.mark.parametrize(("name", "placement"), [("resnet", "pmap"), ("transformer", "single")])
def test_a_baseline_is_trained_and_used(name, placement, tmp_path):
    c = digits.get_config("fourier,smoke")
    c.placement = placement
    sizes = {"image_shape": (8, 8, 1), "classes": 10, "permutation": 3}
    c.unlock()
    c.model = ConfigDict(specs.parse(MODELS[name] | sizes).to_dict())
    c.lock()
    c.train.update(steps=4, log_every=2, eval_every=4, save_every=4)

    results = train.loop.run(c, tmp_path)

    assert np.isfinite(results["loss"])
    assert not (tmp_path / "attention.png").exists()
    assert (tmp_path / "samples").is_dir()
    saved = native.load(tmp_path / "model")
    assert saved.model.spec.permutation == 3
    averages = [x for path, x in saved.state.items() if "/mean_ema" in path]
    assert bool(averages) == (name == "resnet")
    assert all(np.any(x["average"] != 0) for x in averages)
    model = perceiver.load(tmp_path)
    sample = next((tmp_path / "samples").iterdir())
    assert len(model.classify(sample, top_k=3)) == 3
