"""A training step of Hugging Face's PyTorch Perceiver, in a process that takes turns.

    python -m benchmarks.huggingface '{"name": ..., "spec": ..., "optim": ..., "batch": 1}'

Random weights, no dropout, float32, as many threads as PyTorch takes by itself, and its fastest
AdamW. Imports no JAX, so that any Python with `torch` and `transformers` can run it.
"""

import json
import sys
from typing import Any

import torch
import transformers

from benchmarks import turns


def main() -> None:
    """Serves steps of the model in the first argument."""
    task = json.loads(sys.argv[1])
    torch.manual_seed(0)
    model, inputs = BUILDERS[task["spec"]["kind"]](task["spec"], task["batch"])
    model.train()
    optim = task["optim"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=optim["lr"],
        betas=(optim["b1"], optim["b2"]),
        eps=optim["eps"],
        weight_decay=optim["weight_decay"],
        fused=True,
    )

    def step() -> None:
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    turns.serve(
        step,
        parameters=sum(p.numel() for p in model.parameters()),
        versions=f"torch {torch.__version__}, transformers {transformers.__version__}",
    )


def _config(spec: dict[str, Any], **fields: Any) -> transformers.PerceiverConfig:
    return transformers.PerceiverConfig(
        num_latents=spec["latents"],
        d_latents=spec["latent_channels"],
        num_blocks=spec["blocks"],
        num_self_attends_per_block=spec["layers"],
        num_self_attention_heads=spec["self_heads"],
        num_cross_attention_heads=spec["cross_heads"],
        attention_probs_dropout_prob=0.0,
        **fields,
    )


def _image(spec: dict[str, Any], batch: int):
    config = _config(spec, num_labels=spec["classes"])
    model = transformers.PerceiverForImageClassificationFourier(config)
    height, width, channels = spec["image_shape"]
    images = torch.randn(batch, channels, height, width)
    return model, {"inputs": images, "labels": torch.randint(spec["classes"], (batch,))}


def _text(spec: dict[str, Any], batch: int):
    config = _config(
        spec,
        vocab_size=spec["vocabulary"],
        max_position_embeddings=spec["max_length"],
        d_model=spec["embedding_channels"],
        qk_channels=spec["self_qk_channels"],
        v_channels=spec["cross_v_channels"],
    )
    model = transformers.PerceiverForMaskedLM(config)
    tokens = torch.randint(spec["vocabulary"], (batch, spec["max_length"]))
    return model, {"inputs": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}


BUILDERS = {"image_classifier": _image, "masked_lm": _text}


if __name__ == "__main__":
    main()
