"""Training of very deep stacks, by the project's own loop: curves, and where a run broke off."""

import dataclasses
import pathlib
from typing import Any

from train.window import NonFiniteError

from configs import masked_lm
from train import journal, loop

_LATENT_STACK = {  # of the Perceiver: a narrow one of 100 layers
    "max_length": 16,
    "embedding_channels": 32,
    "latents": 16,
    "latent_channels": 32,
    "layers": 100,
    "cross_heads": 2,
    "cross_qk_channels": 32,
    "cross_v_channels": 32,
    "self_heads": 2,
    "self_qk_channels": 32,
    "query_heads": 2,
    "query_qk_channels": 32,
    "remat": "sqrt",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One run: a model, how its branches join the stream, and the learning rate."""

    model: str  # "transformer", or "perceiver"
    residual: str
    rate: float
    steps: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.model}-{self.residual}-{self.rate:g}"


TRIALS = (
    Trial(model="transformer", residual="deepnorm", rate=5e-3, steps=400),
    Trial(model="transformer", residual="post_norm", rate=5e-3, steps=400),
    Trial(model="transformer", residual="post_norm", rate=5e-4, steps=200),
    Trial(model="perceiver", residual="deepnorm", rate=5e-3, steps=400),
    Trial(model="perceiver", residual="post_norm", rate=5e-3, steps=400),
    Trial(model="perceiver", residual="pre_norm", rate=5e-3, steps=400),
)


def train(trial: Trial, folder: pathlib.Path, *, smoke: bool = False) -> dict[str, Any]:
    """Trains in its own folder, going on where that run stopped; a run that is over is only read.

    Returns:
      The trial's fields, of "steps" those of this run; "layers"; "curve", [step, bits] of the
      training bytes that were hidden since the row before; "held_out", the same of validation;
      "unigram" and "bigram", bits of these predictors on the same hidden bytes; and "diverged", the
      guard's words where a number was not finite, else "".
    """
    config, run = config_of(trial, smoke=smoke), folder / trial.name
    diverged = ""
    if not (run / "model").exists():  # exported at the end
        try:
            loop.run(config, run)
        except NonFiniteError as error:
            diverged = str(error)
    rows = journal.read(run / "metrics.jsonl")
    held_out = [row for row in rows if row.get("validation/bits") is not None]
    return {
        **dataclasses.asdict(trial),
        "steps": config.train.steps,  # a smoke run takes fewer than its trial
        "layers": config.model.layers,
        "curve": [[row["step"], row["bits"]] for row in rows if row.get("bits") is not None],
        "held_out": [[row["step"], row["validation/bits"]] for row in held_out],
        "unigram": held_out[-1]["validation/unigram/bits"] if held_out else None,
        "bigram": held_out[-1]["validation/bigram/bits"] if held_out else None,
        "diverged": diverged,
    }


def config_of(trial: Trial, *, smoke: bool = False) -> Any:
    """Returns `configs/masked_lm.py:deepnet` with what the trial changes; all else is the same."""
    option = ",smoke" if smoke else ""
    config = masked_lm.get_config("deepnet" + option)
    if trial.model == "perceiver":
        perceiver = masked_lm.get_config("embedded" + option)
        config.model = perceiver.model
        if not smoke:
            config.model.update(_LATENT_STACK)
            config.data.seq_len = config.model.get_ref("max_length")
    config.model.residual = trial.residual
    config.optim.lr = trial.rate
    if not smoke:
        config.train.steps = trial.steps
    return config
