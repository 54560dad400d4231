"""Masked language modelling on UTF-8 bytes or subwords (Perceiver IO, section 4.1).

    python -m train --config=configs/masked_lm.py:embedded --workdir=runs/bytes

Small variants: embedded (default; a laptop, minutes; on the text of the Python standard library,
which every machine has), performer (the same task and machine; a Transformer whose attention is
linear in the window), small (11M parameters; one GPU, about half an hour), base (50M; one GPU, a
day). From the paper: bytes (201M), bytes-plus (425M), sentencepiece (223M; needs a model file, see
`python -m data.prepare sentencepiece`), and the Transformers they are compared with: bert-base
(110M, on the same subwords; post-norm like BERT, `--config.model.residual=pre_norm` for pre-norm)
and bert-bytes (20M). performer-bytes is the latter with the usual random features of 2009.14794 and
is not in either paper. These six read the stores `c4` and `wikipedia` in `--config.data.data_dir`,
70 and 30 percent of the tokens, 10 documents per crop (appendix F.3), written by
`python -m data.prepare text`; the others read the bundled text, or any other store with
`--config.data.source=text:NAME`.

The paper's batch of 2,048 needs many devices. A variant followed by ",modern" is for one GPU:
bfloat16 products, and the same batch in micro-batches of 128 windows whose gradients are
accumulated; `--config.train.micro_batches` sets another number of them (a divisor of
batch / devices).

Training time on one GPU: a step costs three forward passes of a batch, whose FLOPs `python -m
perceiver.describe` counts; at an achieved S FLOP/s, steps * batch * 3 * forward / S seconds:

  variant   forward    windows           FLOP       at S = 50e12   at S = 100e12
  small     3.5e9      50,000 x 256      1.3e17     44 minutes     22 minutes
  base      34e9       150,000 x 512     7.9e18     44 hours       22 hours
  bytes     121e9      500,000 x 2,048   3.7e20     86 days        43 days

S is an assumption: it has not been measured with these configs.
"""

from configs import common
from perceiver.kinds import released

_EMBEDDED = {
    "kind": "masked_lm",
    "max_length": 128,
    "embedding_channels": 128,
    # Smaller than the released models' 1.0, which makes the initial logits far too large.
    "embedding_scale": 0.1,
    "position_scale": 0.1,
    # Training was at 3.86 bits after 1,000 steps, instead of 4.24 after 2,000 (one run each).
    "position_start": "sinusoids",
    "latents": 32,
    "latent_channels": 192,
    "layers": 4,
    "cross_heads": 4,
    "cross_qk_channels": 64,
    "cross_v_channels": 192,
    "self_heads": 4,
    "self_qk_channels": 64,
    "query_heads": 4,
    "query_qk_channels": 64,
}
_PERFORMER = {
    "kind": "masked_lm_transformer",
    "max_length": 128,
    "channels": 96,
    "layers": 3,
    "heads": 4,
    "embedding_scale": 0.1,
    "position_scale": 0.1,
    "position_start": "sinusoids",
    "kernel": "favor_relu",
    "kernel_features": 64,  # for heads of 24 channels
    "kernel_redraw": False,  # as is usual with ReLU; redrawing them hurts small models
}
_SMALL = {
    **_EMBEDDED,
    "max_length": 512,
    "embedding_channels": 256,
    "latents": 128,
    "latent_channels": 512,
    "layers": 8,
    "cross_heads": 8,
    "cross_qk_channels": 128,
    "cross_v_channels": 512,
    "self_heads": 8,
    "self_qk_channels": 128,
    "query_heads": 8,
    "query_qk_channels": 128,
}
_BASE = {
    **_SMALL,
    "max_length": 2048,
    "embedding_channels": 512,
    "latents": 256,
    "latent_channels": 768,
    "layers": 16,
    "cross_qk_channels": 256,
    "cross_v_channels": 768,
    "self_qk_channels": 256,
    "query_qk_channels": 256,
}
# DeepNet's depth at 1/16 of its width; windows of 16 bytes, as their attention is quick to learn.
_DEEPNET = {
    "kind": "masked_lm_transformer",
    "max_length": 16,
    "layers": 1000,
    "channels": 32,
    "heads": 2,
    "widening": 1,
    "residual": "deepnorm",
    "norm_learned": False,
    "remat": "sqrt",
    "embedding_scale": 0.5,
    "position_scale": 0.1,
    "position_start": "sinusoids",
}
_MODELS = {
    "embedded": _EMBEDDED,
    "performer": _PERFORMER,
    "deepnet": _DEEPNET,
    "small": _SMALL,
    "base": _BASE,
    "bytes": released.MODELS["masked-lm-bytes"],
    "bytes-plus": released.MODELS["masked-lm-bytes-plus"],
    "sentencepiece": released.MODELS["masked-lm-sentencepiece"],
    "bert-bytes": released.MODELS["bert-bytes"],
    "performer-bytes": released.MODELS["performer-bytes"],
    "bert-base": released.MODELS["bert-base"],
}
VARIANTS = tuple(_MODELS)

_PIECE = 128  # windows of 2,048 bytes that one GPU processes at a time


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS, ("modern", "smoke"))
    c = common.get_config("masked_lm", _MODELS[variant])
    c.data.source = "stdlib_text"
    c.data.seq_len = c.model.get_ref("max_length")
    c.data.update(masking="word", mask_rate=0.15)
    c.optim.update(schedule="warmup_cosine", weight_decay=0.01)
    _RECIPES.get(variant, _paper)(c)
    if variant in ("sentencepiece", "bert-base"):
        c.data.tokenizer = "sentencepiece.model"  # relative to the working directory
    if "modern" in options:
        _modern(c)
    if "smoke" not in options:
        return c
    sizes = {"cross_v_channels": 32, "embedding_channels": 32, "query_heads": 2}
    narrow = dict.fromkeys(("cross_qk_channels", "self_qk_channels", "query_qk_channels"), 16)
    own = {name: size for name, size in (sizes | narrow).items() if name in c.model}
    c.data.update(source="stdlib_text", weights=(), tokenizer="bytes")
    return common.shrink(c, max_length=64, vocabulary=262, **own)


def _embedded(c):
    """Two CPU cores, half an hour.

    With masked words the model learns little in that time: 4.91 bits against a bigram's 4.99, with
    twice the window, latents and batch, 6 layers and 3,000 steps. So single bytes are masked.
    """
    c.data.update(masking="byte", batch_size=16, eval_batch_size=256)
    c.train.update(steps=8000, log_every=100, eval_every=1000, save_every=1000)
    c.optim.update(name="adamw", lr=1e-3, warmup_steps=100, clip_norm=1.0)


def _performer(c):
    """The same task for a Transformer whose attention is linear in the window."""
    _embedded(c)
    c.optim.update(b2=0.98, eps=1e-9, weight_decay=0.1, clip_norm=0.5)  # Performer, appendix A.2


def _deepnet(c):
    """One core, eight minutes: shows that 1,000 layers do learn, not how far.

    LAMB scales the update of each matrix by the norm of that matrix. Adam updates all alike: at a
    rate that suits the embedding, 2,000 branches that start small together change the output too
    much, and after 170 steps these layers had learned as little as post-norm ones.
    """
    c.data.update(masking="byte", batch_size=16, eval_batch_size=256, eval_examples=1024)
    c.train.update(steps=400, log_every=10, eval_every=100, save_every=400)
    c.optim.update(name="lamb", lr=5e-3, weight_decay=0.0, warmup_steps=10, clip_norm=1.0)


def _small(c):
    """One GPU, under an hour."""
    _modern(c)
    c.data.update(batch_size=256, eval_batch_size=256)
    c.train.update(steps=50_000, log_every=100, eval_every=2_500, save_every=2_500)
    c.optim.update(name="adamw", lr=1e-3, warmup_steps=1_000, clip_norm=1.0)


def _base(c):
    """One GPU, a day."""
    c.data.update(batch_size=512, eval_batch_size=256)
    c.train.update(steps=150_000, log_every=100, eval_every=5_000, save_every=2_500)
    c.optim.update(name="lamb", lr=1.25e-3, warmup_steps=1_000, clip_norm=1.0)
    _modern(c)


def _paper(c):
    """Perceiver IO, table 12; the mixture is from appendix F.3."""
    c.data.update(source="text:c4+wikipedia", weights=(0.7, 0.3), documents=10)
    c.data.update(batch_size=2048, eval_batch_size=256)
    c.train.update(steps=500_000, log_every=100, eval_every=10_000, save_every=5_000)
    # Not stated: clipping. If losses jump, --config.optim.clip_norm=1.
    c.optim.update(name="lamb", lr=1.25e-3, warmup_steps=1_000, clip_norm=0.0)


def _modern(c):
    """For one modern GPU."""
    c.model.operands = "bfloat16"  # of matrix products; sums, softmax, norms stay float32
    if c.model.max_length > 512:  # shorter windows need no micro-batches
        c.train.micro_batches = max(1, c.data.batch_size // _PIECE)


_RECIPES = {
    "embedded": _embedded,
    "performer": _performer,
    "deepnet": _deepnet,
    "small": _small,
    "base": _base,
}
