"""Writes the names and shapes of the released models' arrays to `names.json`.

    python tests/golden/make_names.py FOLDER

FOLDER holds full listings, made with DeepMind's and Hugging Face's own code: `<kind>.json` with
rows [module, name, shape, dtype] and `hf_<kind>_keys.json`. Here a `*` stands for the layers of a
stack, whose number comes first: "26 x encoder.self_attends.*.mlp.dense1.bias": [1280].
"""

import json
import pathlib
import re
import sys

OUTPUT = pathlib.Path(__file__).parent / "names.json"
KINDS = {
    "imagenet-fourier": ("imagenet_fourier", "hf_fourier_keys"),
    "imagenet-learned": ("imagenet_learned", "hf_learned_keys"),
    "imagenet-conv": ("imagenet_conv", "hf_conv_keys"),
    "masked-lm-bytes": ("mlm_bytes", "hf_mlm_keys"),
    "optical-flow": ("optical_flow", "hf_flow_keys"),
    "video-autoencoder": ("video_autoencoding", "hf_multimodal_keys"),
}
# Layers are written `self_attention`, `self_attention_1`, ...; `self_attends.0.`, ...; `layer.0.`
LAYER = re.compile(
    r"(?<=self_attention)(_\d+)?(?=/)|(?<=self_attends\.)\d+(?=\.)|(?<=\.layer\.)\d+"
)


def compact(names: dict[str, list[int]]) -> dict[str, list[int]]:
    """Replaces the layers of a stack by a `*`."""
    layers: dict[str, list[tuple[str, list[int]]]] = {}
    for name, shape in names.items():
        layers.setdefault(LAYER.sub("*", name), []).append((name, shape))
    found = {}
    for name, rows in layers.items():
        assert all(shape == rows[0][1] for _, shape in rows), name
        found[f"{len(rows)} x {name}" if "*" in name else name] = rows[0][1]
    assert expand(found) == names
    return found


def expand(names: dict[str, list[int]]) -> dict[str, list[int]]:
    """The inverse of `compact`."""
    found = {}
    for name, shape in names.items():
        count, _, stack = name.partition(" x ")
        for i in range(int(count)) if stack else ():
            number = f"_{i}" if i else ""
            found[stack.replace("*", str(i) if ".*." in stack else number)] = shape
        if not stack:
            found[name] = shape
    return found


def main(folder: pathlib.Path) -> None:
    """Writes `names.json`."""
    output = {}
    for kind, (deepmind, hugging_face) in KINDS.items():
        lists = json.loads((folder / f"{deepmind}.json").read_text())
        rows = lists["params"] + lists.get("state", [])
        state_dict = json.loads((folder / f"{hugging_face}.json").read_text())["state_dict"]
        output[kind] = {
            "deepmind": compact({f"{module}/{name}": shape for module, name, shape, _ in rows}),
            "huggingface": compact({name: row["shape"] for name, row in state_dict.items()}),
        }
    lines = re.sub(r"\[\s+([\d,\s]*?)\s+\]", one_line, json.dumps(output, indent=1))
    OUTPUT.write_text(lines + "\n")
    print(OUTPUT)


def one_line(match: re.Match) -> str:
    """Returns a list of numbers that JSON has spread over lines as one line."""
    return "[" + ", ".join(match[1].replace(",", " ").split()) + "]"


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
