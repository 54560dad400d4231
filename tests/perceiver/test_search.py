"""`python -m perceiver.search`: nearest, most similar pairs, clusters, against brute force."""

import json

import numpy as np
import pytest
from sklearn import cluster

from perceiver import search
from perceiver.pretrained import embedding, similarity

CLOSE = 1e-6  # float32


@pytest.fixture
def rows(rng):
    """Rows of which two are equal, two are parallel, and one is zero."""
    rows = rng.standard_normal((37, 5)).astype(np.float32)
    rows[31], rows[11], rows[23] = rows[3], 2.5 * rows[7], 0
    return rows


def cosines_of(rows):
    units = rows / np.where(rows.any(axis=1), np.linalg.norm(rows, axis=1), 1)[:, None]
    return units.astype(np.float64) @ units.T.astype(np.float64)


def test_nearest_are_those_of_brute_force(rows, rng):
    queries = rng.standard_normal((3, 5)).astype(np.float32)
    places, cosines = similarity.nearest(rows, queries, 4)
    expected = cosines_of(np.concatenate([queries, rows]))[:3, 3:]
    assert places.tolist() == np.argsort(-expected, axis=1)[:, :4].tolist()
    np.testing.assert_allclose(cosines, -np.sort(-expected, axis=1)[:, :4], atol=CLOSE)


@pytest.mark.parametrize("block", [1, 7, 36, 1024])
@pytest.mark.parametrize("k", [1, 13, 666])
def test_pairs_are_those_of_brute_force(rows, monkeypatch, block, k):
    monkeypatch.setattr(similarity, "_ROWS", block)
    pairs, cosines = similarity.most_similar_pairs(rows, k)
    expected = cosines_of(rows)[np.triu_indices(37, k=1)]
    np.testing.assert_allclose(cosines, -np.sort(-expected)[:k], atol=CLOSE)
    found = cosines_of(rows)[tuple(pairs.T)]
    np.testing.assert_allclose(cosines, found, atol=CLOSE)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(set(map(tuple, pairs.tolist()))) == k


def test_equal_pairs_are_in_the_order_of_their_rows(monkeypatch):
    monkeypatch.setattr(similarity, "_ROWS", 2)
    pairs, _ = similarity.most_similar_pairs(np.ones((5, 3), np.float32), 4)
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]


def test_clusters_are_scikit_learns(rows):
    real = rows.any(axis=1)
    units = embedding.unit(rows[real])
    by_count = cluster.KMeans(n_clusters=5, n_init=4, random_state=0).fit_predict(units)
    by_threshold = cluster.AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=0.5
    ).fit_predict(units)
    for found, expected in (
        (similarity.clusters(rows, count=5), by_count),
        (similarity.clusters(rows, threshold=0.5), by_threshold),
    ):
        assert found[23] == -1
        pairs = set(zip(found[real].tolist(), expected.tolist(), strict=True))
        assert len(pairs) == len(set(expected.tolist())) == found.max() + 1  # one to one
        sizes = np.bincount(found[real])
        assert (np.diff(sizes) <= 0).all()
        assert found[3] == found[31]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: similarity.nearest(x, x[:, :3], 2), "different models"),
        (lambda x: similarity.nearest(x, x, 38), "k=38, but there are 37 rows"),
        (lambda x: similarity.most_similar_pairs(x, 667), "k=667, but there are 666 pairs"),
        (lambda x: similarity.most_similar_pairs(x * np.inf, 3), "row 0 is not finite"),
        (lambda x: similarity.clusters(x, count=37), "there are 36 rows that are not zero"),
        (lambda x: similarity.clusters(x), "either count or threshold"),
        (lambda x: similarity.clusters(x, count=2, threshold=0.5), "either count or threshold"),
        (lambda x: similarity.clusters(x, threshold=1.5), "a cosine in"),
        (lambda x: similarity.clusters(x[:1], threshold=0.5), "works on 2 to 20,000 rows, got 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
def test_what_cannot_be_is_refused(rows, call, message):
    with pytest.raises(ValueError, match=message):
        call(rows)


# The command.

TEXTS = ["the first line", "another one", "", "the first line", "of something else", "another On"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, draw_model):
    """A tiny model, lines, and their embeddings."""
    folder = tmp_path_factory.mktemp("search")
    spec = {"kind": "masked_lm_transformer", "layers": 1, "channels": 8, "heads": 2}
    model = draw_model(spec | {"max_length": 64})
    model.save(folder / "model")
    (folder / "lines.txt").write_text("\n".join(TEXTS))
    np.save(folder / "x.npy", embedding.embed(model, TEXTS))
    return folder


@pytest.fixture
def run(files, monkeypatch, capsys):
    monkeypatch.setattr(search.compile_cache, "enable", lambda: None)

    def run(*words):
        search.main([str(files / "x.npy"), str(files / "lines.txt"), *words])
        return capsys.readouterr().out

    return run


def test_queries(run, files):
    words = ("--query", "another one", "of something else", f"--model={files / 'model'}", "--top=2")
    first, second = map(json.loads, run(*words, "--json").splitlines())
    assert first["query"] == "another one"
    assert first["nearest"][0]["line"] == 2
    assert second["nearest"][0] == {
        "line": 5,
        "cosine": pytest.approx(1, abs=CLOSE),
        "text": "of something else",
    }
    assert "  1.0000  2: another one" in run(*words)


def test_pairs(run):
    (best,) = map(json.loads, run("--pairs=1", "--json").splitlines())
    assert [row["line"] for row in best["pair"]] == [1, 4]
    assert run("--pairs=1").splitlines() == ["1.0000", "  1: the first line", "  4: the first line"]


@pytest.mark.parametrize("asked", ["--clusters=3", "--threshold=0.9999"])
def test_clusters(run, asked):
    found = [json.loads(line)["lines"] for line in run(asked, "--json").splitlines()]
    assert [1, 4] in found
    assert sorted(line for lines in found for line in lines) == [1, 2, 4, 5, 6]
    assert "cluster 0: " in run(asked, "--top=1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.npy", "lines.txt", "--query", "a"], "--query needs --model"),
        (["x.npy", "lines.txt", "--pairs=1", "--top=0"], "--top must be at least 1"),
        (["x.npy", "model/config.json", "--pairs=1"], "not one row per line"),
        (["y.npy", "lines.txt", "--pairs=1"], "no such file"),
        (["x.npy", "lines.txt", "--pairs=99"], "there are 15 pairs"),
    ],
)
def test_errors_are_told(files, monkeypatch, capsys, words, message):
    monkeypatch.chdir(files)
    monkeypatch.setattr(search.compile_cache, "enable", lambda: None)
    with pytest.raises(SystemExit):
        search.main(words)
    assert message in capsys.readouterr().err
