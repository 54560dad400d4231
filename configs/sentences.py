r"""Sentence embeddings (Sentence-BERT, section 3) with any text encoder of this library.

    python -m train --config=configs/sentences.py --workdir=runs/docstrings
    python -m train.evaluate runs/docstrings       # recall among all held-out texts, next to chance
    python -m perceiver.predict runs/docstrings "Add up numbers.[SEP]Return the sum of all items."

Variants on the standard library's docstrings, which match a summary to its body (in-batch
negatives): embedded (default; a Perceiver, minutes on one core) and embedded-transformer. Variants
of the paper, which start from a byte-level masked language model, `--config.init_from.source`:

    python -m data.prepare tfds snli --data_dir=DATA           # multi_nli and glue/stsb likewise
    python -m train --config=configs/sentences.py:nli --workdir=runs/nli --config.data.data_dir=DATA
    python -m train --config=configs/sentences.py:nli-stsb --workdir=runs/nli-stsb \
        --config.init_from.source=runs/nli --config.data.data_dir=DATA
    python -m train.evaluate --config=configs/sentences.py:sick --weights=runs/nli \
        --config.model.classes=3 --config.data.source=pairs_rows:SICK.txt

nli (SNLI and MultiNLI, classes), stsb (scores), nli-stsb (the same from a run of nli), sick (SICK's
scores) and triplets (three columns of a table).
"""

from configs import common, masked_lm
from perceiver.kinds import released

VARIANTS = ("embedded", "embedded-transformer", "nli", "stsb", "nli-stsb", "sick", "triplets")
# Parameters that only the language model or only this head has. With pooling=latent the decoder
# of the language model fits: ignore ("outputs/b", "outputs/queries") then.
HEAD = ("outputs",)

_EMBEDDED = {
    **masked_lm.get_config("embedded").model.to_dict(),
    "kind": "sentence_encoder",
    "latents": 16,
    "latent_channels": 128,
    "layers": 2,
    "cross_v_channels": 128,
}
_SMOKE = {"nli": "classes", "stsb": "scores", "nli-stsb": "scores", "sick": "scores"}


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS)
    embedded = variant.startswith("embedded")
    model = _EMBEDDED if embedded else released.MODELS["masked-lm-bytes"]
    # The paper's default pooling, and its best on NLI (table 6).
    model = model | {"kind": "sentence_encoder", "pooling": "mean", "classes": 0}
    if variant == "embedded-transformer":
        model["body"] = "transformer"
    c = common.get_config("sentences", model)
    c.init_from.ignore = HEAD
    c.data.seq_len = 0  # the model's maximum, which also depends on the pooling
    c.optim.update(name="adamw", schedule="warmup_cosine")
    (_embedded if embedded else _paper)(c)
    if variant == "nli":
        # Section 3: softmax(W (u, v, |u - v|)); section 3.1: both sets as one.
        c.loss.objective = "classification"
        c.data.source = "tfds_pairs:snli+multi_nli"
        c.data.broken_limit = 1_000  # 785 of SNLI's 550,152 training rows have no gold label
        c.train.epochs = 1.0
    elif variant in ("stsb", "nli-stsb"):
        # Section 3: squared error of the cosine; section 4.2: 4 epochs.
        c.loss.objective = "cosine"
        c.data.source = "tfds_pairs:glue/stsb"
        c.train.epochs = 4.0
        if variant == "nli-stsb":
            c.init_from.update(source="runs/nli", ignore=("outputs/pair",))
    elif variant == "sick":
        c.loss.objective = "cosine"
        c.data.source = "pairs_rows:SICK.txt"
        c.data.update(text_fields=("sentence_A", "sentence_B"), split_field="SemEval_set")
        c.data.update(label_field="relatedness_score", regression=True, score_range=(1.0, 5.0))
        c.data.eval_split = "TEST"
        c.train.epochs = 4.0
    elif variant == "triplets":
        c.loss.update(objective="triplet", margin=1.0)  # section 3: Euclidean, margin 1
        c.data.update(source="pairs_rows:triplets.tsv", label_field="")
        c.data.text_fields = ("anchor", "positive", "negative")
        c.train.epochs = 1.0  # section 4.4
    if "smoke" not in options:
        return c
    form = "pairs" if embedded else _SMOKE.get(variant, "triplets")
    c.data.update(source=f"stdlib_docstrings:{form}", split_field="", text_fields=())
    return shrink(c)


def _embedded(c):
    """One core, minutes."""
    c.data.update(source="stdlib_docstrings:pairs", batch_size=64, eval_batch_size=64)
    c.loss.objective = "negatives"
    c.train.update(steps=600, log_every=20, eval_every=200, save_every=200)
    c.optim.update(lr=1e-3, warmup_steps=60, weight_decay=0.01, clip_norm=1.0)


def _paper(c):
    """Section 3.1: batch 16, Adam, 2e-5, linear warm-up over 10 % of the training data.

    The schedule after the warm-up is not stated (here a cosine to 0), nor are clipping and decay.
    """
    c.init_from.source = "masked-lm-bytes"
    c.data.update(batch_size=16, eval_batch_size=64)
    c.train.update(steps=0, log_every=50, eval_every=0, save_every=0)
    c.optim.update(lr=2e-5, warmup_fraction=0.1, weight_decay=0.0, clip_norm=0.0, eps=1e-8)


def shrink(c):
    """Returns the smoke form: a tiny untrained model on the bundled data."""
    c.init_from.source = ""
    c.optim.warmup_fraction = 0.0
    sizes = {"cross_v_channels": 32, "embedding_channels": 32, "query_heads": 2}
    narrow = dict.fromkeys(("cross_qk_channels", "self_qk_channels", "query_qk_channels"), 16)
    return common.shrink(c, max_length=64, **sizes, **narrow)
