"""Figures of classes and of probabilities, compared: against the metrics themselves, scikit-learn and scipy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tunebook.cli.compare import compare
from tunebook.comparison import figures as figures_module
from tunebook.comparison.draws import OF_CLASSES, ClassCounts, Ranking, stratified
from tunebook.metrics import load
from tunebook.types import Score

SPAM = 'classification{"labels": ["ham", "spam", "other one"], "positive": "spam"}'


def records(path, metric, rows):
    """Rows of (reference, prediction, margin or None)."""
    found = []
    for index, (wanted, said, margin) in enumerate(rows):
        score = load(metric).score(said, wanted)
        values = dict(score.values) | ({} if margin is None else {"margin": margin, "class_mass": 0.9})
        verdict = {"values": values, "parsed": score.parsed, "reference": score.reference}
        verdict |= {"rule": score.rule, "reason": score.reason}
        row = {"dataset": "d", "index": index, "prediction": said, "reference": wanted}
        found.append(json.dumps(row | {"scores": {metric: verdict}}) + "\n")
    path.write_text("".join(found))
    return path


def compared(*arguments):
    done = CliRunner().invoke(compare, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["sets"]
    return {figure["name"]: figure for figure in one["figures"]}


@pytest.mark.parametrize("name", ["yes_no", SPAM])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_figures_of_counts_are_the_metrics_own(name, data):
    metric = load(name)
    labels = list(metric.classes)
    pairs = data.draw(
        st.lists(st.tuples(st.sampled_from(labels), st.sampled_from([*labels, None])), min_size=1)
    )
    scores = [
        Score(values={"accuracy": float(said == wanted)}, parsed=said, reference=wanted)
        for wanted, said in pairs
    ]
    figures = metric.aggregate(scores)
    places = np.array([[labels.index(w), len(labels) if s is None else labels.index(s)] for w, s in pairs])
    counts = ClassCounts(
        np.ones((1, len(pairs))), *places.T, len(labels), every_class=metric.short_name == "yes_no"
    )
    declared = [figure for figure in OF_CLASSES if figure in metric.names]
    assert "macro_f1" in declared
    assert "f1" in declared
    for figure in declared:
        assert OF_CLASSES[figure](counts)[0] == pytest.approx(figures[figure]), figure


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_rankings_of_draws_are_scikit_learns_of_the_drawn_rows(seed, n):
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < 0.5
    truth[:2] = True, False
    margins = generator.integers(-3, 4, n) / 2
    ranking = Ranking(truth, margins)
    rows = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    for drawn in stratified(len(rows[0]), len(rows[1]), 3):
        at = np.concatenate([rows[0][drawn.positives], rows[1][drawn.negatives]])
        found = ranking.figures(drawn)
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth[at], margins[at]))
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth[at], margins[at]))


def test_probabilities_of_both_are_compared(tmp_path):
    """A base that does not speak the format and a tuned model meet only here: all of its answers are unread."""
    generator = np.random.default_rng(3)
    truth = generator.random(300) < 0.4
    sides = {"a": truth + generator.normal(0, 3, 300), "b": truth * 2 + generator.normal(0, 1.5, 300)}
    paths = []
    for name, margins in sides.items():
        said = ["The film" if name == "a" else "yes" if margin > 1 else "no" for margin in margins]
        wanted = ["yes" if one else "no" for one in truth]
        rows = zip(wanted, said, margins.tolist(), strict=True)
        paths.append(records(tmp_path / f"{name}.jsonl", "yes_no", rows))
    figures = compared(*paths)
    expected = {
        "auroc": sk.roc_auc_score,
        "average_precision": sk.average_precision_score,
        "brier": lambda truth, margins: sk.brier_score_loss(truth, 1 / (1 + np.exp(-margins))),
    }
    for name, function in expected.items():
        figure = figures[name]
        assert figure["first"] == pytest.approx(function(truth, sides["a"]))
        assert figure["second"] == pytest.approx(function(truth, sides["b"]))

    def difference(truth, first, second):
        return sk.roc_auc_score(truth, second) - sk.roc_auc_score(truth, first)

    columns = (truth, sides["a"], sides["b"])
    interval = stats.bootstrap(
        columns, difference, paired=True, vectorized=False, n_resamples=300, rng=1
    ).confidence_interval
    found = figures["auroc"]["low"], figures["auroc"]["high"]
    assert found == pytest.approx((interval.low, interval.high), abs=0.03)
    assert figures["auroc"]["verdict"] == "better"
    assert (figures["brier"]["larger_is_better"], figures["brier"]["verdict"]) == (False, "better")
    assert (figures["unparsed_rate"]["first"], figures["unparsed_rate"]["second"]) == (1.0, 0.0)


def test_many_rows_are_ranked_by_a_standard_error_that_is_that_of_the_bootstrap(monkeypatch):
    generator = np.random.default_rng(1)
    truth = generator.random(2000) < 0.3
    pair = SimpleNamespace(
        classes=np.where(truth, hash("yes"), hash("no")),
        first={"margin": truth + generator.normal(0, 2, 2000)},
        second={"margin": truth + generator.normal(0, 1, 2000)},
    )
    found = []
    for limit in (10_000, 1000):
        monkeypatch.setattr(figures_module, "_RANKED_ABOVE", limit)
        found.append(figures_module.compare_figure(load("yes_no"), pair, "auroc"))
    assert [one.test for one in found] == ["paired bootstrap", "paired normal"]
    assert (found[0].low, found[0].high) == pytest.approx((found[1].low, found[1].high), abs=0.01)
    assert (found[0].second_low, found[0].second_high) == pytest.approx(
        (found[1].second_low, found[1].second_high), abs=0.01
    )


def test_probabilities_on_one_side_or_of_one_class_are_not_compared(tmp_path):
    rows = [("yes" if at % 2 else "no", "yes", float(at % 5)) for at in range(20)]
    whole = records(tmp_path / "a.jsonl", "yes_no", rows)
    without = records(tmp_path / "b.jsonl", "yes_no", [(wanted, said, None) for wanted, said, _ in rows])
    one_class = records(tmp_path / "c.jsonl", "yes_no", [("yes", said, margin) for _, said, margin in rows])
    assert "auroc" in compared(whole, whole)
    assert "auroc" not in compared(whole, without)
    assert "auroc" not in compared(one_class, one_class)


def test_a_classifier_of_any_labels_is_compared_by_its_figures_too(tmp_path):
    generator = np.random.default_rng(0)
    labels = ["ham", "spam", "other one"]
    wanted = [labels[at] for at in generator.integers(0, 3, 200)]
    paths, said = [], {}
    for name, share in (("a", 0.5), ("b", 0.8)):
        right = generator.random(200) < share
        said[name] = [
            w if ok else labels[at % 3] for at, (w, ok) in enumerate(zip(wanted, right, strict=True))
        ]
        rows = [(w, s, None) for w, s in zip(wanted, said[name], strict=True)]
        paths.append(records(tmp_path / f"{name}.jsonl", SPAM, rows))
    figures = compared(*paths)
    macro = figures["macro_f1"]
    assert macro["first"] == pytest.approx(sk.f1_score(wanted, said["a"], average="macro"))
    assert macro["second"] == pytest.approx(sk.f1_score(wanted, said["b"], average="macro"))
    assert (macro["verdict"], macro["test"]) == ("better", "paired bootstrap")
    assert figures["recall"]["second"] == pytest.approx(
        sk.recall_score(wanted, said["b"], labels=["spam"], average="macro")
    )
    asked = ["--require", "d/macro_f1 better", "--require", "classification/weighted_f1 >= base"]
    assert CliRunner().invoke(compare, [*map(str, paths), *asked]).exit_code == 0
