"""A classifier's evaluation: figures are drawn, the page says what the numbers say, and hides nothing."""

import json
import re

import numpy as np
import pytest

from sbi_da.classification_report import CAPTIONS, classification_report
from sbi_da.classifier_evaluation import evaluate_classifier
from sbi_da.diagnostics.classification import evaluate_classes
from sbi_da.errors import SbiDaError
from sbi_da.plots.classification import confusion_figure, fractions_figure, ranking_figure
from sbi_da.plots.galaxies import flattened, gallery_figure, latent_classes_figure, umap_available

CLASSES = ["elliptical", "<i>irregular</i>", "spiral"]
FRACTIONS = [0.3, 0.1, 0.6]
TEXT = re.compile(r"<(?:td|th|p|b|li|caption|figcaption)[^>]*>([^<]*)")


@pytest.fixture(scope="module")
def objects():
    rng = np.random.default_rng(0)
    y = rng.choice(3, 160, p=FRACTIONS)
    features = rng.standard_normal((160, 4)) + 2 * np.eye(4)[y]
    logits = 2 * features[:, :3] - 2
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    unknown = np.arange(160) < 15
    return p, np.where(unknown, -1, y), features, unknown, rng.random((160, 6, 6, 3))


@pytest.fixture(scope="module")
def evaluated(objects):
    p, y, features, unknown, images = objects
    source = np.random.default_rng(1).standard_normal((120, 4))
    labels = np.arange(120) % 3
    return evaluate_classifier(
        p, y, CLASSES, FRACTIONS, images=images, features=features, simulated_features=source + 2 * np.eye(4)[labels],
        simulated_labels=labels, strata={"depth": np.where(np.arange(160) % 3, "deep", "shallow")}, unknown=unknown,
        replicates=40, permutations=19, min_count=50,
    )


def page(report):
    return re.sub('base64,[^"]*', "", report.render())


def test_everything_asked_for_is_there(evaluated, objects):
    metrics, figures = evaluated
    optional = set() if umap_available() else {"latent_umap"}
    assert set(figures) == set(CAPTIONS) - optional
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    p, y, _, unknown, _ = objects
    alone = evaluate_classes(p[~unknown], y[~unknown], CLASSES, FRACTIONS, replicates=40)
    assert metrics["overall"] == alone["overall"] and metrics["left_out"] == {"unknown class": 15}
    assert metrics["anomalies"]["score"] == "entropy of the probabilities" and metrics["anomalies"]["n_known"] == 145
    assert set(metrics["domains"]["within"]) | set(metrics["domains"]["too_few"]) == set(CLASSES)
    assert sum(c["value"] for c in metrics["label_shift"]["fractions"].values()) == pytest.approx(1)
    assert any("umap-learn" in note for note in metrics["notes"]) is not umap_available()


def test_page_holds_the_numbers_escaped_and_nothing_from_elsewhere(evaluated):
    metrics, figures = evaluated
    text = page(classification_report(metrics, {**figures, "An extra one.": figures["confusion"]}, "Run <7>", "A *note*."))
    assert text.count("<img ") == len(figures) + 1
    assert not re.search(r'(?:src|href)="(?!#|data:)|https?:|url\(|@import|<script|<link', text)
    assert "<i>irregular" not in text and "&lt;i&gt;irregular&lt;/i&gt;" in text and "<em>note</em>" in text
    accuracy = metrics["overall"]["accuracy"]
    assert f"{100 * accuracy['value']:.1f} %" in text and f"{100 * accuracy['low']:.1f}" in text
    assert "Accuracy is above that of the majority predictor" in text
    assert not [cell for cell in TEXT.findall(text) if re.search(r"\b(nan|None|inf)\b", cell)]
    for heading in ("Summary", "Confusion", "Calibration", "Examples", "Latent space", "Domain tests", "Anomalies", "By stratum"):
        assert f">{heading}</h2>" in text
    stored = page(classification_report(json.loads(json.dumps(metrics))))
    assert "<img " not in stored and "Latent space" not in stored and "By stratum" in stored


def test_a_classifier_below_the_majority_is_told_so():
    y = np.repeat([0, 1, 2], [20, 10, 170])
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 200)
    text = page(classification_report(evaluate_classifier(p, y, CLASSES, FRACTIONS, replicates=50)[0]))
    assert "Accuracy is <strong>below that of the majority predictor</strong>, beyond doubt" in text
    assert "Its NLL is <strong>no better than" in text
    same = np.tile([0.1, 0.0, 0.9], (200, 1))
    text = page(classification_report(evaluate_classifier(same, y, CLASSES, [0.1, 0, 0.9], replicates=50)[0]))
    assert "Accuracy is <strong>no better than that of the majority predictor</strong>" in text
    assert "Class fractions by EM were skipped" in text


def test_one_object_and_perfect_answers_have_a_page_too():
    one, figures = evaluate_classifier(np.array([[0.2, 0.1, 0.7]]), np.array([2]), CLASSES, FRACTIONS, images=np.zeros((1, 4, 4, 3)))
    text = page(classification_report(one, figures))
    assert "1 objects" in text and not [cell for cell in TEXT.findall(text) if re.search(r"\b(nan|None|inf)\b", cell)]
    y = np.arange(90) % 3
    perfect, figures = evaluate_classifier(np.eye(3)[y], y, CLASSES, FRACTIONS, replicates=20)
    page(classification_report(perfect, figures))
    accuracy = perfect["overall"]["accuracy"]
    assert accuracy["value"] == accuracy["high"] == 1 and 0.9 < accuracy["low"] < 1


def test_arguments_that_do_not_fit_are_named(objects):
    p, y, features, unknown, images = objects
    for options, message in (
        ({"images": images[:3]}, "'images' has 3 rows for 160"), ({"strata": {"snr": y[:2]}}, "'snr' has 2 rows"),
        ({"simulated_features": features}, "belong together"), ({"unknown": y}, "boolean mask"),
        ({"simulated_features": features, "simulated_labels": y}, "features, which are not given"),
        ({}, "leave out objects of unknown class"),
    ):
        with pytest.raises(SbiDaError, match=message):
            evaluate_classifier(p, y, CLASSES, FRACTIONS, **options)
    with pytest.raises(SbiDaError, match="none empty"):
        evaluate_classifier(p, y, CLASSES, FRACTIONS, unknown=np.ones(160, bool))


def test_galleries_show_the_most_confident_objects(monkeypatch):
    seen = {}
    monkeypatch.setattr("sbi_da.classifier_evaluation.gallery_figure", lambda rows, columns: seen.setdefault(len(seen), rows))
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.99, 0.01]])
    images = np.arange(5.0)[:, None, None, None] * np.ones((5, 2, 2, 3))
    evaluate_classifier(p, np.array([0, 0, 0, 1, 1]), ["a", "b"], [0.5, 0.5], images=images, replicates=5)
    right, wrong = seen[0], seen[1]
    assert [(label, image[:, 0, 0, 0].tolist(), captions) for label, image, captions in right] == [
        ("a\n2 of 3", [0, 1], ["0.900", "0.600"]), ("b\n0 of 2", [], [])
    ]
    assert [(label, image[:, 0, 0, 0].tolist(), captions) for label, image, captions in wrong] == [
        ("a\n1 of 3", [2], ["b 0.80"]), ("b\n2 of 2", [4, 3], ["a 0.99", "a 0.70"])
    ]


def test_latent_picture_keeps_groups_apart_and_repeats():
    rng = np.random.default_rng(0)
    group = np.arange(60) % 2
    x = rng.standard_normal((60, 5)) + 12 * group[:, None]
    flat = flattened(x)
    inside = np.linalg.norm(flat[group == 0] - flat[group == 0].mean(0), axis=1).mean()
    assert np.linalg.norm(flat[group == 0].mean(0) - flat[group == 1].mean(0)) > 2 * inside
    np.testing.assert_array_equal(flattened(x), flat)
    assert flattened(x[:, :1]).shape == (60, 2) and np.isfinite(flattened(np.zeros((20, 3)))).all()
    for bad, method, message in ((x[:5], "tsne", "ten or more"), (x * np.nan, "tsne", "finite"), (x, "pca", "known are")):
        with pytest.raises(SbiDaError, match=message):
            flattened(bad, method)
    with pytest.raises(SbiDaError, match="label a row"):
        latent_classes_figure(x, group[:3], ["a", "b"])


def test_umap_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("sbi_da.plots.galaxies.find_spec", lambda name: None)
    with pytest.raises(SbiDaError, match="pip install umap-learn"):
        flattened(np.zeros((20, 2)), "umap")


def test_figures_of_many_classes_and_of_gaps():
    rng = np.random.default_rng(0)
    names = [f"class {k}" for k in range(10)]
    p, y = rng.dirichlet(np.ones(10), 300), rng.integers(9, size=300)  # the last never occurs
    block = evaluate_classes(p, y, names, np.ones(10), replicates=10)["overall"]
    assert len(ranking_figure(p, y, names, block["per_class"]).axes[0].lines) == 1 + 9
    confusion_figure(block["confusion"], names).canvas.draw()
    fig = fractions_figure({"true": block["fractions"]["true"], "stated": {"class 0": 0.2}}, names)
    assert [patch.get_height() for patch in fig.axes[0].patches][-1] == pytest.approx(20)
    with pytest.raises(SbiDaError, match="no row"):
        gallery_figure([])
    with pytest.raises(SbiDaError, match="captions"):
        gallery_figure([("a", np.zeros((2, 3, 3, 3)), ["one"])])


def test_figures_leave_pyplot_alone(evaluated):
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_umap_keeps_groups_apart_and_follows_its_seed(rng):
    pytest.importorskip("umap")
    group = np.repeat([0, 1], 40)
    features = rng.standard_normal((80, 5)) + 30 * group[:, None]
    flat = flattened(features, "umap", seed=3)
    assert flat.shape == (80, 2) and np.array_equal(flat, flattened(features, "umap", seed=3))
    near = np.linalg.norm(flat[:, None] - flat, axis=-1) + 1e9 * np.eye(80)
    assert (group[near.argmin(1)] == group).all()
