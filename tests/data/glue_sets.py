"""Writes sets of GLUE's tasks in TFDS's format, with their true features and few examples."""

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from data.labelled_text import tfds_text

CLASSES = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "stsb": None,
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
}


def write(
    root, task, size=11, fields=None, name=None, names=None, validation=("validation",), without=()
):
    """Writes a task below root; example i says its number in each text, and has class i mod K.

    `names` are those of another set's classes; examples `without` a class have -1, as in SNLI.
    """
    names = names or CLASSES.get(task, ("no", "yes"))
    fields = fields or tfds_text.GLUE[task]
    label = tfds.features.Scalar(np.float32)
    if names is not None:
        label = tfds.features.ClassLabel(names=names)
    features = tfds.features.FeaturesDict(
        {field: tfds.features.Text() for field in fields}
        | {"label": label, "idx": tfds.features.Scalar(np.int32)}
    )
    splits = ["train", *validation]
    if task == "mnli":
        splits = ["train", "validation_matched", "validation_mismatched"]
    folder = root / (name or f"glue/{task}") / "2.0.0"
    folder.mkdir(parents=True)
    infos = []
    for split in splits:
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=(name or "glue").partition("/")[0],
            split=split,
            filetype_suffix="array_record",
        )
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for i in range(size):
            value = i / 4 if names is None else i % len(names)
            value = -1 if i in without else value
            example = {field: f"{split} {field} {i}" for field in fields}
            example |= {"label": value, "idx": i}
            writer.write(features.serialize_example(features.encode_example(example)))
        writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[size], num_bytes=0, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )
