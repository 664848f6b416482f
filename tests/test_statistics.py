import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from tunebook.errors import TunebookError
from tunebook.metrics import statistics, two_classes
from tunebook.metrics.statistics import UndefinedFigureError
from tunebook.scoring.figures import RowLoss, loss_figures
from tunebook.types import Score


@given(st.integers(1, 5_000), st.data())
def test_wilson_is_statsmodels(n, data):
    successes = data.draw(st.integers(0, n))
    wanted = proportion_confint(successes, n, method="wilson")
    assert statistics.wilson(successes, n) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_a_proportion_of_nothing_is_refused(successes, n):
    with pytest.raises(ValueError, match="proportion"):
        statistics.wilson(successes, n)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    found = statistics.mcnemar(only_first, only_second)
    table = [[10, only_first], [only_second, 10]]
    assert found == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    if only_first + only_second:
        wanted = stats.binomtest(only_first, only_first + only_second).pvalue
        assert found == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_survives_thousands_of_disagreements():
    assert statistics.mcnemar(3_000, 3_200) == pytest.approx(stats.binomtest(3_000, 6_200).pvalue, rel=1e-6)


def test_the_bootstrap_is_near_scipys_and_the_same_each_time():
    column = np.random.default_rng(1).gamma(2.0, size=400)
    found = statistics.bootstrap_mean(column)
    wanted = stats.bootstrap(
        (column,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found == pytest.approx((wanted.low, wanted.high), abs=0.02)
    assert found == statistics.bootstrap_mean(column)
    assert found != statistics.bootstrap_mean(column, seed=1)


def test_the_bootstrap_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch):
    column = np.arange(50.0)
    whole = statistics.bootstrap_mean(column)
    monkeypatch.setattr(statistics, "_CHUNK", 500)
    assert statistics.bootstrap_mean(column) == whole


def test_a_paired_difference_is_narrower_than_two_separate_intervals():
    generator = np.random.default_rng(3)
    first = generator.normal(size=500)
    second = first + 0.1 + 0.1 * generator.normal(size=500)
    difference = statistics.paired_means_test(first, second)
    assert difference.difference == pytest.approx(float((second - first).mean()))
    assert 0 < difference.interval.low < difference.difference < difference.interval.high < 0.12
    with pytest.raises(ValueError, match="same examples"):
        statistics.paired_means_test(first, second[:-1])


def test_the_standard_error_is_scipys():
    column = np.random.default_rng(4).normal(size=30)
    assert statistics.standard_error(column) == pytest.approx(stats.sem(column))
    with pytest.raises(UndefinedFigureError):
        statistics.standard_error([1.0])


# Few distinct scores: ties are where implementations differ.
TIED = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2).filter(
    lambda rows: len({truth for truth, _ in rows}) == 2
)


@given(TIED)
def test_ranking_figures_are_scikit_learns_with_ties(rows):
    truth, scores = zip(*rows, strict=True)
    assert two_classes.auroc(truth, scores) == pytest.approx(sk.roc_auc_score(truth, scores))
    wanted = sk.average_precision_score(truth, scores)
    assert two_classes.average_precision(truth, scores) == pytest.approx(wanted)
    chances = two_classes.probability(scores)
    assert two_classes.brier(truth, chances) == pytest.approx(sk.brier_score_loss(truth, chances))


def test_a_ranking_of_one_class_is_undefined():
    with pytest.raises(UndefinedFigureError):
        two_classes.auroc([True, True], [0.1, 0.2])
    with pytest.raises(UndefinedFigureError):
        two_classes.average_precision([False], [0.1])
    with pytest.raises(ValueError, match="finite"):
        two_classes.auroc([True, False], [math.nan, 0.0])


def test_calibration_error_is_the_gap_between_stated_and_observed():
    # Ten answers at 0.85, eight of them true: a gap of 0.05 in the one bin that is used.
    truth = [True] * 8 + [False] * 2
    assert two_classes.expected_calibration_error(truth, [0.85] * 10) == pytest.approx(0.05)
    assert two_classes.expected_calibration_error([True, False], [1.0, 0.0]) == 0.0


def test_probabilities_of_huge_margins_do_not_overflow():
    assert two_classes.probability([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]


def test_an_unparsed_answer_lowers_recall_and_does_not_change_precision():
    counts = two_classes.confusion(["yes", None, "no", None], ["yes", "yes", "no", "no"], positive="yes")
    assert counts == (1, 0, 1, 0, 1, 1)
    assert (counts.precision, counts.recall, counts.specificity, counts.accuracy) == (1.0, 0.5, 0.5, 0.5)


def test_perplexity_weighs_tokens_and_not_batches():
    # Two batches of mean loss 1 and 3: the mean of batches would say exp(2).
    rows = [RowLoss(nll=9.0, tokens=9, hits=0), RowLoss(nll=3.0, tokens=1, hits=0)]
    assert loss_figures(rows, batch_size=1).perplexity == pytest.approx(math.exp(1.2))
    with pytest.raises(TunebookError, match="supervised token"):
        loss_figures([], batch_size=1)


def test_reasons_and_rules_are_counted():
    scores = [
        Score(values={}, parsed=None, reason="empty"),
        Score(values={}, parsed=None, reason="hedge"),
        Score(values={}, parsed=None, reason="hedge"),
        Score(values={}, parsed="yes", rule="bare"),
    ]
    assert statistics.unparsed_reasons(scores) == {"hedge": 2, "empty": 1}
    assert statistics.counts_by_rule(scores) == {"bare": 1}
