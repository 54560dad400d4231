r"""Text classification by a Perceiver IO, from a pre-trained masked language model or from scratch.

    python -m train --config=configs/masked_lm.py:embedded --workdir=runs/bytes
    python -m train --config=configs/text_classification.py --workdir=runs/syntax \
        --config.init_from.source=runs/bytes

    python -m train --config=configs/text_classification.py:released --workdir=runs/mine \
        --config.data.source=rows:FILE.csv --config.data.label_field=LABEL

Variants: embedded (default; the model of `configs/masked_lm.py:embedded`, which classifies the
middle of 128 bytes of Python: a comment, a name, a number, ...) and released (201M parameters, from
the released language model). `data.source` is rows:PATH, your own table of texts and labels, or
tfds_text:NAME; the number of classes comes from the data.

The encoder and the decoder weights come from the pre-trained model; its position queries and bias
are dropped, and a new query and MLP are initialised (Perceiver IO, section 4.1).
"""

from configs import common, masked_lm

VARIANTS = ("embedded", "released")
# Parameters that a language model has in another form, or lacks.
HEAD = ("outputs/b", "outputs/queries", "outputs/head")

_LANGUAGE_MODELS = {"embedded": "embedded", "released": "bytes"}


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS)
    model = masked_lm.get_config(_LANGUAGE_MODELS[variant]).model.to_dict()
    model |= {"kind": "text_classifier", "classes": 0}
    c = common.get_config("text_classification", model)
    c.init_from.ignore = HEAD
    c.data.source = "stdlib_syntax"
    c.data.seq_len = c.model.get_ref("max_length")
    c.optim.update(schedule="warmup_cosine", weight_decay=0.01)
    if variant == "embedded":
        c.data.update(batch_size=32, eval_batch_size=64)
        c.train.update(steps=400, log_every=20, eval_every=100, save_every=100)
        c.optim.update(name="adamw", lr=3e-4, warmup_steps=40, clip_norm=1.0)
    else:  # Perceiver IO, table 13
        c.init_from.source = "masked-lm-bytes"
        c.data.update(batch_size=32, eval_batch_size=32)
        c.train.update(steps=0, epochs=10.0, log_every=50, eval_every=0, save_every=0)
        c.optim.update(name="lamb", lr=5e-5, warmup_steps=200)
    return shrink(c) if "smoke" in options else c


def shrink(c):
    """Returns the smoke form: a tiny untrained model on the bundled data."""
    c.init_from.source = ""
    sizes = {"cross_v_channels": 32, "embedding_channels": 32, "query_heads": 2}
    narrow = dict.fromkeys(("cross_qk_channels", "self_qk_channels", "query_qk_channels"), 16)
    return common.shrink(c, max_length=64, **sizes, **narrow)
