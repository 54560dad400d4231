r"""GLUE as in Perceiver IO (section 4.1, appendix F.4, tables 2, 13 and 14): UTF-8 bytes, no
tokenizer.

    python -m data.prepare tfds glue/cola --data_dir=DATA
    python -m train --config=configs/glue.py:cola --workdir=runs/cola --config.data.data_dir=DATA
    python -m train.evaluate runs/cola                   # the metric of the paper's tables: `score`
    python -m train.sweep --config=configs/glue.py:cola --workdir=runs/sweep/cola \
        --grid optim.lr=1e-4,5e-5,2e-5,1e-5 data.batch_size=16,32,64 --config.data.data_dir=DATA

Variants: the eight tasks; mnli_matched and mnli_mismatched, which are mnli with one of its two
validation sets; and all eight at once, distinguished by a query per task (multitask-query), by a
token (multitask-tokens), or by their heads alone (multitask-shared). `plus` after a comma is the
larger model, for which --config.init_from.source must be given.

The paper reports the best point of its grid (table 13: the one above) per task; the defaults here
are one such point. Ten epochs are taken to be of each task's training set; for several tasks, of
all together, sampled in proportion to their sizes, which the paper does not specify.
"""

from configs import common, text_classification
from perceiver.kinds import released

# The paper's tasks, in the order of its tables, and their classes; 1: a number.
TASKS = {
    "cola": 2,
    "mnli": 3,
    "mrpc": 2,
    "qnli": 2,
    "qqp": 2,
    "rte": 2,
    "sst2": 2,
    "stsb": 1,
}
_MULTITASK = {
    "multitask-query": "query",
    "multitask-shared": "shared_token",
    "multitask-tokens": "task_tokens",
}
VARIANTS = (*TASKS, "mnli_matched", "mnli_mismatched", *_MULTITASK)


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS, ("plus", "smoke"))
    language_model = "masked-lm-bytes-plus" if "plus" in options else "masked-lm-bytes"
    model = released.MODELS[language_model] | {"kind": "text_classifier", "classes": 0}
    if variant in _MULTITASK:
        model |= {"tasks": tuple(TASKS), "task_classes": tuple(TASKS.values())}
        model |= {"classes": sum(TASKS.values()), "multitask": _MULTITASK[variant]}
    c = common.get_config("text_classification", model)
    c.init_from.source = "" if "plus" in options else language_model  # ++ was never released
    c.init_from.ignore = text_classification.HEAD
    c.data.source = f"tfds_text:glue/{variant}"
    if variant in _MULTITASK:
        heads = tuple(f"outputs/head_{task}" for task in TASKS)
        tokens = ("task_tokens",) if variant == "multitask-tokens" else ()
        c.init_from.ignore = ("outputs/b", "outputs/queries", *heads, *tokens)
        c.data.source = "tfds_text:" + "+".join(f"glue/{task}" for task in TASKS)
    length = c.model.get_ref("max_length")
    if variant in ("multitask-shared", "multitask-tokens"):
        length = length - 1  # a token precedes the text
    c.data.seq_len = length
    c.data.update(batch_size=32, eval_batch_size=32)
    c.train.update(steps=0, epochs=10.0, log_every=50, eval_every=0, save_every=0)
    c.optim.update(name="lamb", lr=5e-5, schedule="warmup_cosine", warmup_steps=200)
    c.optim.update(weight_decay=0.01, clip_norm=0.0)  # clipping is not stated
    if "smoke" not in options:
        return c
    # On the bundled texts, which are a single task.
    c.model.update(classes=0, tasks=(), task_classes=(), multitask="query")
    c.data.source = "stdlib_syntax"
    c.init_from.ignore = text_classification.HEAD
    return text_classification.shrink(c)
