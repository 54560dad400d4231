import pickle

import ml_collections
import numpy as np
import pytest

import data
from data.text import mixture
from perceiver.text import tokenizer


@pytest.fixture
def texts(tmp_path, rng, write_store):
    """Three texts: `a` of capitals, `b` of small letters, `c` of digits; words of all lengths."""

    def documents(letters, lengths):
        return [rng.choice([*letters, 32], n).astype(np.uint8).tobytes() for n in lengths]

    for name, letters, mean in [("a", b"ABCDEF", 211), ("b", b"abcdef", 97), ("c", b"0123", 13)]:
        for split, count in [("train", 401), ("validation", 23)]:
            lengths = rng.integers(1, 2 * mean, size=count)
            write_store(tmp_path / name / split, documents(letters, lengths))
    return tmp_path


@pytest.fixture
def config(make_config, texts):
    def config(source, **fields):
        return make_config(source=source, data_dir=str(texts), seq_len=61, **fields)

    return config


def batches(config, split="train", *, batch_size=6, train=True, seed=0, **hosts):
    return data.load(config, split, batch_size=batch_size, seed=seed, train=train, **hosts)


def crops_of(loaded, count):
    """Returns the first texts of batches, as the model would see them unmasked."""
    found = []
    for _ in range(count):
        batch = next(loaded)
        found += [tokenizer.decode(row) for row in batch["targets"]]
    loaded.close()
    return found


@pytest.mark.parametrize("documents", [0, 1, 10])
def test_a_text_gives_masked_windows(config, documents):
    loaded = batches(config("text:a", documents=documents))
    batch = next(loaded)
    loaded.close()
    assert {name: (x.dtype, x.shape) for name, x in batch.items()} == {
        "tokens": (np.int32, (6, 61)),
        "targets": (np.int32, (6, 61)),
        "input_mask": (np.bool_, (6, 61)),
        "target_mask": (np.bool_, (6, 61)),
        "source": (np.int32, (6,)),
        "mask": (np.bool_, (6,)),
    }
    assert set("".join(tokenizer.decode(row) for row in batch["targets"])) <= set("ABCDEF ")


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 9), (0.2, 0.8)])
@pytest.mark.parametrize("source", ["text:a+b", "text:a+c"])
@pytest.mark.parametrize("documents", [0, 10])
def test_proportions_are_by_tokens(config, source, weights, documents):
    loaded = batches(config(source, weights=weights, documents=documents))
    tokens = np.zeros(2)
    epochs = 5  # an epoch is exact in examples; how full short groups are varies a little
    for _ in range(-(-epochs * loaded.num_examples // 6)):
        batch = next(loaded)
        np.add.at(tokens, batch["source"], batch["input_mask"].sum(axis=1))
    loaded.close()
    expected = np.array(weights) / sum(weights)
    np.testing.assert_allclose(tokens / tokens.sum(), expected, atol=0.01)


def test_the_source_is_the_place_of_the_name(config):
    loaded = batches(config("text:c+a+b", weights=(1, 1, 1)))
    letters = {0: set("0123 "), 1: set("ABCDEF "), 2: set("abcdef ")}
    seen = set()
    for _ in range(20):
        batch = next(loaded)
        for number, row in zip(batch["source"].tolist(), batch["targets"], strict=True):
            assert set(tokenizer.decode(row)) <= letters[number]
            seen.add(number)
    loaded.close()
    assert seen == {0, 1, 2}


def test_without_weights_all_text_comes_once(config, texts):
    section = config("text:a+b")
    sizes = [(texts / name / "train" / "bytes.bin").stat().st_size // 61 for name in "ab"]
    assert data.info(section).examples["train"] == sum(sizes)
    loaded = batches(section)
    assert loaded.num_examples == sum(sizes)
    numbers = np.concatenate([next(loaded)["source"] for _ in range(sum(sizes) // 6)])
    loaded.close()
    assert abs((numbers == 0).sum() - sizes[0]) < 6


def test_hosts_share_no_crop_in_an_epoch(config):
    section = config("text:a+b", weights=(0.5, 0.5))
    parts = []
    for host in range(2):
        loaded = batches(section, host_index=host, host_count=2)
        parts.append(crops_of(loaded, loaded.num_examples // 6))
    assert len(parts[0]) == len(parts[1]) > 100
    assert not set(parts[0]) & set(parts[1])
    # Laid end to end they are what one host alone would have.
    whole = crops_of(batches(section), 5)
    assert whole == [x for i in range(5) for part in parts for x in part[3 * i : 3 * i + 3]]


@pytest.mark.parametrize("documents", [0, 1, 10])
def test_resuming_is_bit_equal_in_the_middle_of_a_document(config, documents):
    section = config("text:a+b", weights=(0.7, 0.3), documents=documents)
    loaded = batches(section)
    number = loaded.num_examples // 6 - 2  # so that what follows spans two epochs
    for _ in range(number):
        next(loaded)
    state = loaded.state()
    expected = [next(loaded) for _ in range(5)]
    loaded.close()
    again = batches(section)
    again.restore(state)
    for batch in expected:
        resumed = next(again)
        assert set(batch) == set(resumed)
        for name, value in batch.items():
            np.testing.assert_array_equal(value, resumed[name])
    again.close()
    # Some crop begins within a document: it does not begin with what any document begins with.
    starts = {d[:7] for d in documents_of(section, "a") + documents_of(section, "b")}
    first = [tokenizer.decode(row)[:7] for batch in expected for row in batch["targets"]]
    assert any(text not in starts for text in first)


def documents_of(section, name):
    one = ml_collections.ConfigDict(section.to_dict() | {"source": f"text:{name}"})
    (store,) = data.text.text_sources.stores(one, "train")
    return [store.document(i).tobytes().decode() for i in range(len(store))]


def test_evaluation_covers_every_byte_in_order(config, texts):
    loaded = batches(config("text:b+a", weights=(0.9, 0.1)), "validation", train=False)
    found = {0: "", 1: ""}
    for batch in loaded:
        for i in np.flatnonzero(batch["mask"]):
            found[int(batch["source"][i])] += tokenizer.decode(batch["targets"][i])
    loaded.close()
    for number, name in enumerate("ba"):
        assert found[number] == (texts / name / "validation" / "bytes.bin").read_text()


def test_worker_processes_cut_the_same(config):
    here, there = (batches(config("text:a+b", workers=n)) for n in (0, 1))
    for _ in range(2):
        np.testing.assert_array_equal(next(here)["tokens"], next(there)["tokens"])
    here.close()
    there.close()


@pytest.mark.parametrize("documents", [0, 10])
@pytest.mark.parametrize("split", data.SPLITS)
def test_no_text_is_sent_to_worker_processes(config, split, documents):
    section, train = config("text:a+b", documents=documents), split == "train"
    source = data.text.text_sources.dataset(section, split, seed=0, train=train).source
    expected = source.example(3, 0)
    content = pickle.dumps(source)
    assert len(content) < 2_000
    np.testing.assert_array_equal(
        pickle.loads(content).example(3, 0)["bytes"], expected["bytes"], strict=True
    )


def test_the_stream_of_a_text_is_its_file_and_of_a_mixture_a_sample(config, texts):
    content = (texts / "a" / "train" / "bytes.bin").read_bytes()
    one = data.stream(config("text:a"), "train")
    assert one.tobytes() == content
    assert isinstance(one, np.memmap)
    mixed = data.stream(config("text:a+b", weights=(0.7, 0.3)), "train")
    capitals = np.isin(mixed, list(b"ABCDEF")).sum() / (mixed != 32).sum()
    assert abs(capitals - 0.7) < 0.02


@pytest.mark.parametrize(
    ("source", "fields", "error", "message"),
    [
        ("text:nothing", {}, FileNotFoundError, "text 'nothing' is not prepared under"),
        ("text:a+a", {}, ValueError, "give each name of a mixture once"),
        ("text:a+", {}, ValueError, "give each name of a mixture once"),
        ("text:a+b", {"weights": (1.0,)}, ValueError, "has 1 values for the 2 texts"),
        ("text:a", {"weights": (1.0, 2.0)}, ValueError, "has 2 values for the 1 texts"),
        ("text:a+b", {"weights": (1.0, 0.0)}, ValueError, "must be positive numbers"),
        ("text:a+b", {"weights": (1.0, float("nan"))}, ValueError, "must be positive numbers"),
        ("text:a+b", {"weights": (1.0, 1e-9)}, ValueError, "would have none from"),
        ("text:a", {"documents": -3}, ValueError, "documents must be at least 0, got -3"),
    ],
)
def test_what_is_wrong_is_named(config, source, fields, error, message):
    with pytest.raises(error, match=message):
        batches(config(source, **fields))


def test_a_split_without_documents_is_named(config, texts, write_store):
    write_store(texts / "d" / "validation", [])
    with pytest.raises(ValueError, match="has no documents: prepare it again"):
        batches(config("text:d"), "validation", train=False)


def test_counts_sum_up_and_keep_the_proportions():
    assert mixture.counts((0.7, 0.3), (61, 61), (1009, 31)) == [72, 31]
    # Half as full examples: twice as many of them.
    assert mixture.counts((1, 1), (61, 30.5), (33, 1009)) == [33, 66]
