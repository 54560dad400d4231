"""Writes what Hugging Face's BERT and ViT save, names and shapes, to `transformer_names.json`.

    pip install torch transformers && python tests/golden/make_transformer_names.py

Each class has its default size, which is that of the papers' base models. A `*` stands for the
layers of a stack, as in `names.json`.
"""

import importlib.util
import json
import pathlib
import re
import tempfile

FOLDER = pathlib.Path(__file__).parent
OUTPUT = FOLDER / "transformer_names.json"
CLASSES = {"BertForMaskedLM": "BertConfig", "ViTForImageClassification": "ViTConfig"}


def saved(name: str, config: str) -> dict[str, list[int]]:
    """Returns the names and shapes in the file that `save_pretrained` writes."""
    import safetensors
    import transformers

    model = getattr(transformers, name)(getattr(transformers, config)())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safetensors.safe_open(f"{folder}/model.safetensors", "np") as file:
            return {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}


def main() -> None:
    """Writes `transformer_names.json`."""
    spec = importlib.util.spec_from_file_location("make_names", FOLDER / "make_names.py")
    make_names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_names)
    output = {name: make_names.compact(saved(name, config)) for name, config in CLASSES.items()}
    lines = re.sub(r"\[\s+([\d,\s]*?)\s+\]", make_names.one_line, json.dumps(output, indent=1))
    OUTPUT.write_text(lines + "\n")
    print(OUTPUT)


if __name__ == "__main__":
    main()
