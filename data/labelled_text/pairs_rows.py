"""`pairs_rows:PATH`: a user's pairs or triplets of texts, in a table or in JSON lines.

Files, splits and bad rows are those of `rows:PATH`. `data.text_fields` names the two or three
columns of the texts, `data.label_field` that of the label: classes; with `data.regression` scores,
which `data.score_range` brings to 0..1; "": there is none. SICK, as its authors give it
(SICK.txt, 9,840 pairs between tabs):

    data.source         pairs_rows:SICK.txt
    data.text_fields    sentence_A, sentence_B
    data.split_field    SemEval_set (TRAIN, TRIAL, TEST); data.eval_split TRIAL or TEST
    data.label_field    relatedness_score, with data.regression and data.score_range 1, 5;
                        or entailment_label (entailment_judgment in files of one split), classes
"""

import dataclasses
from typing import Any

from data.dataset import Dataset, DatasetInfo
from data.labelled_text import rows, sentence_pairs


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns a split."""
    source = rows.scan(config, _fields(config))[0][split]
    return sentence_pairs.dataset(source, config, info(config))


def info(config: Any) -> DatasetInfo:
    """Returns the facts; all rows are read."""
    fields = _fields(config)
    return dataclasses.replace(rows.facts(config, fields), texts=len(fields))


def _fields(config: Any) -> tuple[str, ...]:
    fields = tuple(config.text_fields)
    if len(fields) not in (2, 3):
        raise ValueError(
            f"data.text_fields={fields} must name two columns (a pair of texts) or three (a "
            "triplet)"
        )
    return fields
