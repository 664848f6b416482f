"""The pieces of a report: intervals, thinning, secrets, numbers for readers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebook.metrics import yes_no
from tunebook.redact import redact, redact_text
from tunebook.report.lines import thin
from tunebook.report.significance import wilson_interval, yes_no_interval

COUNTS = Counter({("yes", "yes"): 40, ("yes", "no"): 10, ("no", "no"): 45, ("no", "yes"): 5})


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=400),
    st.integers(8, 200),
)
def test_thinning_keeps_ends_and_extremes_and_its_limit(values, limit):
    series = np.array(values)
    kept = thin(series, limit)
    assert len(kept) <= max(limit, 8)
    assert (np.diff(kept) > 0).all()
    assert {0, len(series) - 1} <= set(kept.tolist())
    finite = series[np.isfinite(series)]
    if len(finite):
        assert finite.max() in series[kept]
        assert finite.min() in series[kept]


def test_a_single_spike_in_a_million_points_survives():
    series = np.sin(np.arange(1_000_000) / 1e5)
    series[765_432] = 50.0
    assert 765_432 in thin(series, 500)


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "precision", "recall", "balanced_accuracy"])
def test_intervals_of_yes_no_figures_hold_the_figure_the_metric_reports(name):
    answers = [pair for pair, count in COUNTS.items() for _ in range(count)]
    figures = yes_no.aggregate([yes_no.score(said, truth) for truth, said in answers])
    interval = yes_no_interval(name, figures[name], COUNTS)
    if name == "accuracy":
        assert interval is None
        return
    assert interval.low < figures[name] < interval.high
    assert 0.05 < interval.high - interval.low < 0.35


def test_an_interval_is_never_put_to_a_number_that_its_counts_do_not_give():
    assert yes_no_interval("f1", 0.5, COUNTS) is None
    assert yes_no_interval("mystery", 0.5, COUNTS) is None
    assert yes_no_interval("f1", 0.0, Counter()) is None


def test_a_perfect_score_of_few_examples_is_not_certain():
    perfect = Counter({("yes", "yes"): 10, ("no", "no"): 10})
    assert yes_no_interval("macro_f1", 1.0, perfect).low < 0.95
    assert yes_no_interval("macro_f1", 1.0, perfect).high == 1.0
    assert wilson_interval(1.0, 20).low == pytest.approx(0.8389, abs=1e-4)


def test_the_interval_of_f1_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = np.array([0.30, 0.10, 0.0, 0.15, 0.45, 0.0])
    f1 = 2 * 0.30 / (2 * 0.30 + 0.10 + 0.15)
    cells = [(r, p) for r in ("yes", "no") for p in ("yes", "no", None)]
    covered = 0
    for _ in range(200):
        counts = rng.multinomial(150, truth)
        found = Counter(dict(zip(cells, counts.tolist(), strict=True)))
        tp, fn, _, fp = counts[:4]
        interval = yes_no_interval("f1", 2 * tp / (2 * tp + fn + fp), found)
        covered += interval.low <= f1 <= interval.high
    assert 180 <= covered <= 198


@pytest.mark.parametrize(
    "text",
    [
        "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz",
        "wandb login 0123456789abcdef0123456789abcdef01234567",
        "hub_token: 'abcd1234efgh'",
        '{"api_key": "abcd1234efgh"}',
        "--hf-token abcd1234efgh5678 --model x",
        "https://user:abcd1234efgh@host/path",
        "Authorization: Bearer abcd1234efgh5678",
        "AWS_SECRET_ACCESS_KEY=abcd1234efgh/5678+",
        "mysql password=abcd1234efgh;",
        "sk-ant-api03-abcd1234efgh5678",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text):
    shown = redact_text(text)
    assert "[redacted]" in shown
    assert "abcd1234efgh" not in shown
    assert "0123456789abcdef" not in shown
    assert "hf_abcdef" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "max_new_tokens: 256",
        "eos_token: <|im_end|>",
        "pad_token=<|endoftext|>",
        "token_accuracy: 0.9877",
        "num_input_tokens_seen 512000",
        "hf_hub_url: openai/gsm8k",
        "commit 950bbee3f0ecae7089697b0dd862a9972cc9ccfc",
        "model_revision: 950bbee3f0ecae7089697b0dd862a9972cc9ccfc",
        "https://huggingface.co/Qwen/Qwen3-0.6B",
        "hub_token: null",
        "skip_special_tokens: true",
        "Answer Yes or No. The password of the story is never told.",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact_text(text) == text


def test_a_key_that_says_secret_hides_its_whole_text_but_no_number():
    given = {
        "hub_token": "x",
        "wandb": {"api_key": ["a", "b"]},
        "tokens": 12,
        "eos_token": "</s>",
        "auth": None,
    }
    assert redact(given) == {
        "hub_token": "[redacted]",
        "wandb": {"api_key": ["[redacted]", "[redacted]"]},
        "tokens": 12,
        "eos_token": "</s>",
        "auth": None,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
        max_leaves=20,
    )
)
def test_taking_secrets_out_twice_is_taking_them_out_once(value):
    once = redact(value)
    assert redact(once) == once
