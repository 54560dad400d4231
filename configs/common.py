"""All config fields, with their defaults and meanings. The files of the tasks only set values.

    python -m train --config=configs/FILE.py:VARIANT --workdir=DIR --config.SECTION.FIELD=VALUE

A variant may be followed by ",smoke": the same experiment reduced to two steps on bundled data,
which runs on a CPU in seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from perceiver.kinds import specs


def get_config(task: str, model: Mapping[str, Any]) -> ConfigDict:
    """Returns the defaults of all fields for a task ("classification", "masked_lm").

    Args:
      task: a key of `train.tasks.TASKS`.
      model: a spec, such as one of `perceiver.released.MODELS`; fields left out get their
      defaults.
    """
    c = ConfigDict()
    c.task = task
    c.seed = 0  # of parameters, data order, augmentation, masking and dropout
    c.deterministic = False  # GPUs: sums in a fixed order, slower; CPUs and TPUs always do so
    c.placement = "pmap"  # single, pmap (replicated parameters), sharded (on `mesh`)
    c.mesh = ConfigDict()  # sharded: sizes of the mesh axes; -1 (for one axis): the rest
    c.mesh.data = 1  # copies of the state
    c.mesh.fsdp = -1  # shards of the state; a batch is split over data x fsdp
    c.mesh.sequence = 1  # shards of the byte array's elements
    c.model = ConfigDict(
        _fields(model)
    )  # perceiver/kinds/specs/; classes, image_shape may be 0, ()

    c.init_from = ConfigDict()  # weights that a fresh run starts from
    c.init_from.source = ""  # anything perceiver.load accepts: a run, a file, a released name
    c.init_from.ignore = ()  # module paths to initialise anew: ("outputs/decoder/out",) is the head

    c.data = ConfigDict()
    # digits, noisy_digits, stdlib_text, tfds:NAME, folder:PATH (a folder of class folders),
    # clips:NAME (audioset, scenes), scenes (a few, drawn on the fly),
    # text:NAME, text:NAME+OTHER (stores of text, a mixture);
    # labelled texts: tfds_text:NAME (glue/cola), rows:PATH, stdlib_syntax;
    # pairs, triplets: tfds_pairs:NAME (snli+multi_nli, glue/stsb), pairs_rows:PATH,
    # stdlib_docstrings:FORM (pairs, classes, scores, triplets)
    c.data.source = ""
    c.data.data_dir = ""  # where TFDS data and text stores are; "": TFDS's own default
    c.data.train_split = ""  # TFDS split name; "": the builder's own
    c.data.eval_split = ""
    c.data.train_examples = 0  # train on a fixed random subset of this size; 0: all
    c.data.batch_size = 128  # over all devices and hosts
    c.data.eval_batch_size = 128
    c.data.eval_examples = 0  # evaluate on this many, evenly spaced; 0: all
    c.data.workers = 0  # processes that prepare batches; 0: a thread
    c.data.image_size = 224  # images, clips: side in pixels
    c.data.channels = 3  # images: 1 (grey) or 3
    c.data.augment = "none"  # none, inception (crop, flip; clips: colour); images: also digits
    c.data.crop_area = (0.08, 1.0)  # inception: smallest and largest share of the image area
    c.data.rand_augment_layers = 0  # images: number of random operations after that; 0: none
    c.data.rand_augment_magnitude = 5  # their strength, 0 to 10
    c.data.video = True  # clips: False reads no frames
    c.data.audio = True  # clips: False reads no sound
    c.data.frames = 32  # clips: frames per window, 25 per second
    c.data.audio_samples = 61_440  # clips: samples per window, 48,000 per second
    c.data.eval_windows = 16  # clips: windows per clip in evaluation, evenly spaced
    # Clips, inception: largest relative change of brightness, contrast and saturation; hue turns by
    # at most a quarter of it; 0: off
    c.data.colour = 0.4
    c.data.time_jitter = 0  # clips, training: largest shift of audio against video, in samples
    c.data.class_balanced = False  # clips, training: draw clips of rare classes more often
    c.data.broken_limit = 100  # unreadable examples tolerated per split; more end the run
    # Labelled texts: column of the text, or of both texts of a pair; (): GLUE's own, else "text".
    # Pairs, triplets: columns of the two or three texts
    c.data.text_fields = ()
    c.data.label_field = "label"  # labelled texts, pairs; "": pairs_rows without labels
    c.data.regression = False  # rows, pairs_rows: labels are numbers to predict, not classes
    c.data.split_field = ""  # rows, pairs_rows: column that names the split; "": none
    c.data.score_range = ()  # pairs: lowest and highest score, mapped to 0 and 1; (): from the data
    c.data.seq_len = 2048  # text: tokens per window; 0, for pairs: the model's maximum
    c.data.weights = ()  # text: mixture weights, as shares of tokens; (): by size
    # text:NAME, training: documents to concatenate before cropping a window; 0: all, in order
    c.data.documents = 10
    c.data.tokenizer = "bytes"  # text: bytes, or the file of a SentencePiece model
    # Subwords: bytes of text to read per token of a window; pieces that do not fit are dropped
    c.data.piece_bytes = 5.0
    c.data.masking = "word"  # text: word (whole words between white space), byte, span
    c.data.mask_rate = 0.15  # text: share of words (or bytes, or characters) to mask
    c.data.span_length = 20.0  # text, span: mean length in characters

    c.train = ConfigDict()
    c.train.steps = 1000  # 0: as given by `epochs`
    c.train.epochs = 0.0  # of the training split
    c.train.micro_batches = 1  # micro-batches (gradient accumulation) per update, to save memory
    c.train.log_every = 50  # steps
    c.train.eval_every = 500  # steps; 0: once an epoch
    c.train.save_every = 500  # steps; 0: once an epoch
    c.train.keep = 3  # number of newest checkpoints to keep
    c.train.keep_every = 0  # also keep checkpoints at multiples of this step; 0: none

    c.guard = ConfigDict()
    # stop: a non-finite loss or gradient ends the run; skip: the step changes nothing
    c.guard.non_finite = "stop"
    c.guard.max_skips = 10  # skip: more skips than this between two log lines end the run
    # Report losses this many (robust) standard deviations above the recent median; 0: off
    c.guard.spike = 10.0
    c.guard.slow_step = 10.0  # report a step this many times the median, and its host; 0: off
    c.guard.hang_seconds = 1800.0  # a step that takes longer ends the process; 0: never
    c.guard.failed_saves = 3  # this many failed saves in a row (such as a full disk) end the run

    c.optim = ConfigDict()
    c.optim.name = "lamb"  # lamb, adamw
    c.optim.lr = 1e-3  # peak of the schedule
    c.optim.b1 = 0.9
    c.optim.b2 = 0.999
    c.optim.eps = 1e-6
    c.optim.weight_decay = 0.01  # not applied to biases and norms
    c.optim.clip_norm = 10.0  # global norm of the gradient; 0: off
    c.optim.ema_decay = 0.0  # of the averaged parameters used in evaluation; 0: off
    c.optim.schedule = "constant_cosine"  # constant, constant_cosine, step_decay, warmup_cosine
    c.optim.steps = 0  # length of the schedule; 0: that of the run, train.steps
    c.optim.warmup_steps = 0  # warmup_cosine
    c.optim.warmup_fraction = 0.0  # warmup_cosine: as a share of the steps; 0: use warmup_steps
    c.optim.constant_fraction = 0.5  # constant_cosine: share of the steps before the cosine
    c.optim.decay_at = (84 / 120, 102 / 120, 114 / 120)  # step_decay: shares of the steps
    c.optim.decay_factor = 0.1  # step_decay

    c.loss = ConfigDict()
    c.loss.label_smoothing = 0.0  # classification
    # Classification: mixing of images, Beta(alpha, alpha); 0: off. Both: half of a batch each.
    c.loss.mixup_alpha = 0.0
    c.loss.cutmix_alpha = 0.0
    # Sentences: classification (of pairs), cosine (of pairs, to match scores), triplet, negatives
    # (in-batch negatives: the other pairs of a batch are the wrong answers)
    c.loss.objective = "classification"
    c.loss.temperature = 0.05  # sentences, negatives: divides the cosines
    c.loss.margin = 1.0  # sentences, triplet: margin of the Euclidean distances
    return c.lock()


def _fields(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all fields of a spec; those to be set from the data stay empty."""
    stand_ins = {"classes": 2, "image_shape": (8, 8, 3)}
    open_fields = {name: model[name] for name in stand_ins if name in model and not model[name]}
    checked = specs.parse({**model, **{name: stand_ins[name] for name in open_fields}})
    return checked.to_dict() | open_fields


def parse_arg(
    arg: str, variants: Sequence[str], options: Sequence[str] = ("smoke",)
) -> tuple[str, frozenset[str]]:
    """Splits "variant,option,..." into (variant, options); the first variant is the default.

    Raises:
      ValueError: a word that is neither a variant nor an option, or two variants.
    """
    words = [word for word in arg.split(",") if word]
    unknown = [word for word in words if word not in (*variants, *options)]
    chosen = [word for word in words if word in variants]
    if unknown or len(chosen) > 1:
        raise ValueError(
            f"unknown config variant {','.join(unknown or chosen)!r}; choose one of "
            f"{', '.join(variants)}, and optionally {' or '.join(map(repr, options))} after a comma"
        )
    return (chosen or [variants[0]])[0], frozenset(words) & frozenset(options)


# Sizes of a smoke run's model; fields that a kind of model lacks are skipped.
_TINY = {
    "latents": 8,
    "latent_channels": 32,
    "layers": 2,
    "self_heads": 4,
    "query_channels": 32,
    "bands": 4,
    "channels": 32,
    "heads": 4,
    "blocks_per_stage": (1, 1),
    "stage_channels": (8, 16),
}
_AT_MOST = {"blocks": 2, "cross_heads": 2, "patch_size": 4}


def shrink(c: ConfigDict, **model: Any) -> ConfigDict:
    """Returns the smoke form: two steps of a tiny model; `model` gives more sizes to change."""
    tiny = _TINY | {name: min(c.model[name], n) for name, n in _AT_MOST.items() if name in c.model}
    c.model.update({name: size for name, size in tiny.items() if name in c.model} | model)
    c.data.update({"batch_size": 8, "eval_batch_size": 64, "workers": 0})
    c.train.update(
        {"steps": 2, "micro_batches": 1, "log_every": 1, "eval_every": 2, "save_every": 1}
    )
    c.optim.warmup_steps = min(c.optim.warmup_steps, 1)
    return c
