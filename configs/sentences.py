r"""Sentence embeddings (Sentence-BERT, section 3) by any encoder of texts here.

    python -m train --config=configs/sentences.py --workdir=runs/docstrings
    python -m train.evaluate runs/docstrings       # recall among all held-out texts, beside chance
    python -m perceiver.predict runs/docstrings "Return the sum." "Add up all numbers." --embed

Variants: embedded (default; the standard library's docstrings, summary and body, in-batch
negatives; minutes on one core). The paper's, from a masked language model of bytes:

    python -m data.prepare tfds snli --data_dir=DATA           # multi_nli, glue/stsb likewise
    python -m train --config=configs/sentences.py:nli --workdir=runs/nli --config.data.data_dir=DATA
    python -m train --config=configs/sentences.py:nli-stsb --workdir=runs/nli-stsb \
        --config.init_from.source=runs/nli --config.data.data_dir=DATA

nli (classification), stsb (cosine against scores), nli-stsb (the same from a run of nli), sick (as
stsb on SICK, for `python -m train.evaluate` above all) and triplets (three columns of a table).
"""

from configs import common, masked_lm
from perceiver import released

VARIANTS = ("embedded", "nli", "stsb", "nli-stsb", "sick", "triplets")
# Parameters that a language model has and this head has not, or the other way round.
HEAD = ("outputs",)


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS)
    if variant == "embedded":
        model = masked_lm.get_config("embedded").model.to_dict()
    else:
        model = dict(released.MODELS["masked-lm-bytes"])
    model |= {"kind": "sentence_encoder", "pooling": "mean", "classes": 0}
    c = common.get_config("sentences", model)
    c.init_from.ignore = HEAD
    c.data.seq_len = c.model.get_ref("max_length")
    c.optim.schedule = "warmup_cosine"
    if variant == "embedded":
        c.data.source = "stdlib_docstrings:pairs"
        c.data.update(batch_size=64, eval_batch_size=64)
        c.loss.objective = "negatives"
        c.train.update(steps=400, log_every=20, eval_every=200, save_every=200)
        c.optim.update(name="adamw", lr=1e-3, warmup_steps=40, weight_decay=0.01, clip_norm=1.0)
    return c
