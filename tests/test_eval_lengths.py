"""Figures by length."""

import pytest

from tunebook import metrics
from tunebook.evaluation.finalise import RecordAndLength, bucket_name, by_length
from tunebook.types import EvalRecord


def row(index, tokens, prediction, reference, metric):
    return RecordAndLength(
        EvalRecord(
            dataset="set", index=index, step=1, prompt="", prediction=prediction, reference=reference,
            mode="generate", scores={metric.name: metric.score(prediction, reference)}, nll=None,
            reference_tokens=1,
        ),
        tokens,
    )  # fmt: skip


def test_every_row_counts_in_one_bucket_and_empty_buckets_are_left_out():
    rouge = metrics.load("rouge")
    rows = [
        row(0, 40_000, "a b c d", "a b c d", rouge),
        row(1, 100, "a b", "x y", rouge),
        row(2, 511, "a b", "a b", rouge),
        row(3, 512, "a", "a", rouge),
    ]
    found = by_length([rouge], rows)
    assert [(bucket.name, bucket.n) for bucket in found] == [("<512", 2), ("512-2k", 1), ("32k+", 1)]
    assert found[0].values["rouge1"] == pytest.approx(50.0 if found[1].values["rouge1"] > 1 else 0.5)
    assert by_length([rouge], rows[::-1]) == found
    assert by_length([rouge], []) == []


def test_a_bucket_says_how_many_of_its_answers_could_not_be_read():
    yes_no = metrics.load("yes_no")
    rows = [row(0, 10, "Yes", "Yes", yes_no), row(1, 20, "It depends.", "No", yes_no)]
    (bucket,) = by_length([yes_no], rows)
    assert (bucket.n, bucket.n_unparsed) == (2, 1)
    assert bucket.values["accuracy"] == 0.5


def test_other_bounds_have_names_of_their_own():
    assert [bucket_name(tokens, (100, 1024)) for tokens in (99, 100, 1024)] == ["<100", "100-1k", "1k+"]
