"""A whole training step beside Hugging Face's PyTorch: forward, backward and AdamW.

    python -m benchmarks.training_step [--parts PART ...] [--rounds 5] [--batch 1] [--smoke]

PART is a model, imagenet-fourier or masked-lm-bytes (default: both), at full size. Same model, same
hyper-parameters, random weights, no dropout, float32. Each side has a process of its own; they take
steps in turn, of which the first (it compiles) does not count. Without the extra `parity` (PyTorch
and transformers) only this project's step is measured. Peak memory is that of each process,
start-up and compilation included.

On a machine that does other work too, set OMP_WAIT_POLICY=PASSIVE: PyTorch's threads otherwise spin
while they wait for each other, which counts as CPU time.
"""

import contextlib
import importlib.util
import json
from typing import Any

from benchmarks import measure

NAMES = ("imagenet-fourier", "masked-lm-bytes")
OPTIM = {"lr": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
_TINY = {"latents": 16, "latent_channels": 64, "layers": 2, "blocks": 1}
# What Hugging Face's models fix (64 bands, 8 heads of 32 in the text decoder) stays.
_TINY_KIND = {
    "imagenet-fourier": {"image_shape": (8, 8, 3), "query_channels": 64},
    "masked-lm-bytes": {"max_length": 32, "embedding_channels": 64, "cross_v_channels": 64},
}
OURS, PEER = "this project", "Hugging Face"


def serve_ours(spec: dict[str, Any], batch_size: int) -> None:
    """Takes this project's steps. JAX is imported here, not in the other process."""
    import jax

    from benchmarks import models
    from perceiver.kinds import specs

    optim = OPTIM | {"name": "adamw", "clip_norm": 0.0}
    step = models.make_step(specs.parse(spec), batch_size, optim=optim)
    state = jax.block_until_ready(jax.jit(step.init)())
    batch = measure.draw_batch(step.batch, highest=models.IDS)
    run = jax.jit(step.run, donate_argnums=0)

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(run(state, batch))

    count = sum(x.size for x in jax.tree.leaves(state.params))
    measure.serve(take, parameters=count, versions=f"jax {jax.__version__}")


def serve_peer(spec: dict[str, Any], batch_size: int) -> None:
    """Takes PyTorch's steps, with as many threads as it takes by itself and its fastest AdamW."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {
        "num_latents": spec["latents"],
        "d_latents": spec["latent_channels"],
        "num_blocks": spec["blocks"],
        "num_self_attends_per_block": spec["layers"],
        "num_self_attention_heads": spec["self_heads"],
        "num_cross_attention_heads": spec["cross_heads"],
        "attention_probs_dropout_prob": 0.0,
    }
    if spec["kind"] == "image_classifier":
        config = transformers.PerceiverConfig(**sizes, num_labels=spec["classes"])
        model = transformers.PerceiverForImageClassificationFourier(config)
        height, width, channels = spec["image_shape"]
        labels = torch.randint(spec["classes"], (batch_size,))
        inputs = {"inputs": torch.randn(batch_size, channels, height, width), "labels": labels}
    else:
        sizes |= {
            "vocab_size": spec["vocabulary"],
            "max_position_embeddings": spec["max_length"],
            "d_model": spec["embedding_channels"],
            "qk_channels": spec["self_qk_channels"],
            "v_channels": spec["cross_v_channels"],
        }
        model = transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(**sizes))
        ids = torch.randint(spec["vocabulary"], (batch_size, spec["max_length"]))
        inputs = {"inputs": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=OPTIM["lr"],
        betas=(OPTIM["b1"], OPTIM["b2"]),
        eps=OPTIM["eps"],
        weight_decay=OPTIM["weight_decay"],
        fused=True,
    )

    def take() -> None:
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    count = sum(p.numel() for p in model.parameters())
    measure.serve(take, parameters=count, versions=versions)


SIDES = {OURS: serve_ours, PEER: serve_peer}


def rows(name: str, spec: dict[str, Any], batch: int, rounds: int) -> list[measure.Row]:
    """Returns a row for each side."""
    sides = [OURS] + [PEER] * (importlib.util.find_spec("transformers") is not None)
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in sides:
            words = ["--serve", json.dumps([side, spec, batch])]
            workers[side] = stack.enter_context(measure.Worker("benchmarks.training_step", words))
        facts = [worker.facts for worker in workers.values()]
        if len({fact["parameters"] for fact in facts}) > 1:
            raise RuntimeError(f"{name}: not the same model: {facts}")
        timings = measure.race(workers, rounds)
    found, ours = [], timings[OURS]
    for (side, timing), fact in zip(timings.items(), facts, strict=True):
        row = {"case": f"{name}, batch {batch}", "side": side, "versions": fact["versions"]}
        row |= {"wall s": timing.wall, "CPU s": timing.cpu, "peak MiB": timing.result}
        if side == PEER:
            row["wall / ours"] = measure.median_ratio(timing.walls, ours.walls)
            row["CPU / ours"] = measure.median_ratio(timing.cpus, ours.cpus)
            row["peak / ours"] = timing.result / ours.result
        found.append(row)
    return found


def main() -> None:
    """Prints a table for each model."""
    parser = measure.parser(__doc__, rounds=5, parts=NAMES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--remat", default="dots", help="of this project's processor")
    parser.add_argument("--operands", default="float32", help="of this project's products")
    parser.add_argument("--serve", type=json.loads, help="used by the processes it starts")
    options = parser.parse_args()
    if options.serve:
        side, *task = options.serve
        SIDES[side](*task)
        return
    from perceiver.kinds import released, specs

    measure.start(options)
    for name in options.parts:
        tiny = _TINY | _TINY_KIND[name] if options.smoke else {}
        how = {"remat": options.remat, "operands": options.operands}
        spec = specs.parse(released.MODELS[name] | tiny | how).to_dict()
        measure.show(rows(name, spec, options.batch, options.rounds))
    if importlib.util.find_spec("transformers") is None:
        print("Hugging Face's side needs the extra `parity`, which is not installed.")


if __name__ == "__main__":
    main()
