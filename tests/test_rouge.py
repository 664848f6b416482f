import functools
import gc
import itertools
import operator
import random
import time

import pytest
import rouge_score_rs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from tunebook.errors import TunebookError
from tunebook.metrics import load, rouge, rouge_lcs, rouge_tokens
from tunebook.metrics import rouge_lcs as rouge_lsum
from tunebook.metrics.rouge_lcs import lcs_length
from tunebook.types import Score

GOOGLE = {stem: rouge_scorer.RougeScorer(list(rouge.TYPES), use_stemmer=stem) for stem in (True, False)}
RUST = {stem: rouge_score_rs.RougeScorer(list(rouge.TYPES), use_stemmer=stem) for stem in (True, False)}

# "was" must not become "wa": words of three letters keep their s.
PLAIN_WORDS = ["a", "b", "c", "the", "wa", "was", "running", "runs", "run", "runner", "national", "nation"]
PLAIN_WORDS += ["skies", "dying", "agreed", "x1", "2024"]
ODD_WORDS = [
    "İstanbul",
    "\u212aelvin",
    "naïve",
    "ſt",
    "日本",
    "Σίσυφος",
    "don't",
    "_",
    "\u3000",
    "\ud800",
    "\r",
]
WORDS = st.sampled_from([*PLAIN_WORDS, *ODD_WORDS])
# Few words make many ties, where one longest common subsequence has to be chosen among several.
FEW_WORDS = st.sampled_from(["a", "b"]) | st.sampled_from(["a", "b", "c", "d"])
SENTENCES = st.lists(FEW_WORDS | WORDS, max_size=12).map(" ".join)
TEXTS = st.lists(SENTENCES, max_size=5).map("\n".join) | st.text(max_size=40)


def plain(scores):
    return tuple(tuple(scores[name]) for name in rouge.TYPES)


def random_text(rng, vocabulary, lines, longest):
    return "\n".join(" ".join(rng.choices(vocabulary, k=rng.randint(0, longest))) for _ in range(lines))


def english_like(rng, words):
    # Zipf's law over 3,000 words gives the mix of frequent and rare words that texts have.
    vocabulary = [f"word{number}s" for number in range(3000)]
    weights = [1 / (rank + 2) for rank in range(3000)]
    flat = rng.choices(vocabulary, weights, k=words)
    cuts = sorted(rng.sample(range(1, words), words // 20))
    return "\n".join(" ".join(flat[start:end]) for start, end in itertools.pairwise([0, *cuts, words]))


@pytest.fixture(autouse=True, scope="module")
def short_limit():
    short, rouge._SHORT = rouge._SHORT, -1
    yield short
    rouge._SHORT = short


@settings(max_examples=100)
@given(TEXTS, TEXTS, st.booleans())
def test_short_texts_have_the_same_scores_by_the_port_to_rust(short_limit, prediction, reference, stem):
    ours = rouge.score(prediction, reference, stem)
    rouge._SHORT = short_limit
    try:
        assert rouge.score(prediction, reference, stem) == ours
        ported = rouge._ported(prediction, reference, stem)
        assert (ported is None) == (not (prediction + reference).isascii())
    finally:
        rouge._SHORT = -1


def test_without_the_port_ours_is_used(monkeypatch, short_limit):
    monkeypatch.setattr(rouge, "_SHORT", short_limit)
    expected = rouge.score("the cats", "the cat")
    monkeypatch.setattr(rouge, "_port", lambda use_stemmer: None)
    assert rouge.score("the cats", "the cat") == expected


@settings(max_examples=250)
@given(TEXTS, TEXTS, st.booleans())
@example("a x", "a a", False)
@example("", "", True)
@example("\n\n", "a\n \nb", True)
@example("a b\nb a", "b a", True)
def test_every_score_equals_rouge_score_to_the_last_bit(prediction, reference, stem):
    expected = plain(GOOGLE[stem].score(reference, prediction))
    assert rouge.score(prediction, reference, use_stemmer=stem) == expected


def test_thousands_of_random_pairs_equal_rouge_score():
    rng = random.Random(3)
    for round_number in range(9):
        stem = round_number % 2 == 0
        pairs = []
        for _ in range(400):
            size = rng.choice([1, 2, 3, 5, 12])
            odd = rng.sample([*PLAIN_WORDS, *ODD_WORDS], size)
            vocabulary = odd if rng.random() < 0.5 else [f"w{number}" for number in range(size)]
            shapes = [(rng.choice([0, 1, 2, 3, 6]), rng.choice([1, 4, 12, 31])) for _ in range(2)]
            pairs.append(tuple(random_text(rng, vocabulary, lines, longest) for lines, longest in shapes))
        expected = [plain(GOOGLE[stem].score(reference, prediction)) for prediction, reference in pairs]
        assert rouge.score_many(pairs, use_stemmer=stem) == expected


def test_sentences_of_up_to_700_words_equal_rouge_score():
    rng = random.Random(4)
    pairs = []
    for lines, longest in [(2, 700), (3, 250), (5, 93), (8, 60)]:
        for size in (2, 6, 400):
            vocabulary = [f"w{number}" for number in range(size)]
            pairs.append((random_text(rng, vocabulary, 2, longest), random_text(rng, vocabulary, lines, 150)))
            pairs.append((random_text(rng, vocabulary, lines, 150), random_text(rng, vocabulary, 2, longest)))
    expected = [plain(RUST[False].score(reference, prediction)) for prediction, reference in pairs]
    assert rouge.score_many(pairs, use_stemmer=False) == expected


@pytest.mark.parametrize("words", [1500, 4000])
def test_long_texts_of_every_line_shape_equal_the_rust_port(words):
    rng = random.Random(words)
    prediction, reference = english_like(rng, words), english_like(rng, words)
    one_line = [text.replace("\n", " ") for text in (prediction, reference)]
    shapes = list(itertools.product((prediction, one_line[0]), (reference, one_line[1])))
    expected = [plain(RUST[True].score(wanted, predicted)) for predicted, wanted in shapes]
    assert rouge.score_many(shapes) == expected


def test_the_two_oracles_agree():
    # The Rust port stands in for rouge-score where that would take minutes; so it is checked as well.
    rng = random.Random(5)
    for _ in range(20):
        prediction, reference = (random_text(rng, ["a", "b", "c", "runs"], 4, 30) for _ in range(2))
        assert plain(RUST[True].score(reference, prediction)) == plain(
            GOOGLE[True].score(reference, prediction)
        )


@settings(max_examples=250)
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=14), min_size=1, max_size=4),
    st.lists(st.integers(1, 6), min_size=1, max_size=14),
)
def test_the_walk_takes_the_positions_rouge_score_takes(reference, candidate):
    strip = rouge_lsum._lay([list(map(chr, sentence)) for sentence in reference], 1)
    columns = [strip.masks.get(chr(word), 0) for word in candidate]
    present = functools.reduce(operator.or_, columns)
    stops = rouge_lsum._stops(columns, strip.full)
    taken = rouge_lsum._walk(strip, list(map(chr, candidate)), stops, present)
    start = 0
    for sentence in reference:
        expected = {start + position for position in rouge_scorer.lcs_ind(sentence, candidate)}
        assert {start + row for row in range(len(sentence)) if taken >> start + row & 1} == expected
        assert lcs_length(sentence, candidate) == len(expected)
        start += len(sentence) + 1


@pytest.mark.parametrize("vocabulary", [3, 40, 1000])
def test_both_ways_to_the_length_agree(monkeypatch, vocabulary):
    rng = random.Random(vocabulary)
    for _ in range(200):
        first, second = (rng.choices(range(vocabulary), k=rng.randint(0, 60)) for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(rouge_lcs, "MATCH_BITS", 1e9)
            by_bits = lcs_length(first, second)
        assert rouge_lcs.by_matches(first, second) == by_bits


def test_a_megabyte_of_distinct_words_on_both_sides_is_scored_in_a_second():
    words = [f"w{number}" for number in range(125_000)]
    shuffled = random.Random(8).sample(words, len(words))
    started = time.process_time()
    scores = rouge.score(" ".join(words), " ".join(shuffled))
    # Word by word along the bits it takes eight times as long.
    assert time.process_time() - started < 1.5
    assert scores.rouge1.fmeasure == 1.0
    # Expected is twice the square root of the number of words.
    longest = round(scores.rougeL.fmeasure * len(words))
    assert 650 < longest < 760
    assert lcs_length([-1, *words, -2, -3], [-1, *shuffled, -2, -3]) == longest + 3


@pytest.mark.parametrize("positions", [1, 7, 40, 300])
def test_strips_of_any_width_give_the_same_scores(monkeypatch, positions):
    rng = random.Random(6)
    pairs = [(english_like(rng, 400), english_like(rng, 500)) for _ in range(3)]
    expected = rouge.score_many(pairs)
    monkeypatch.setattr(rouge_lsum, "STRIP_POSITIONS", positions)
    assert rouge.score_many(pairs) == expected


def test_a_long_prediction_narrows_the_strips(monkeypatch):
    # 64 bits of history for each of 400 words, where there is room for 4 kB.
    rng = random.Random(7)
    prediction, reference = english_like(rng, 400).replace("\n", " "), english_like(rng, 500)
    expected = rouge.score(prediction, reference)
    widths = []
    strips = rouge_lsum._strips
    monkeypatch.setattr(rouge_lsum, "HISTORY_BYTES", 400 * 8)
    monkeypatch.setattr(rouge_lsum, "_strips", lambda *args: widths.append(args[1]) or strips(*args))
    assert rouge.score(prediction, reference) == expected
    assert widths == [64]


def test_more_words_than_there_are_letters_are_refused(monkeypatch):
    monkeypatch.setattr(rouge_lsum, "MOST_WORDS", 3)
    assert rouge.score("a b\nc d", "a b\nc x").rouge1.fmeasure == 0.75
    with pytest.raises(TunebookError, match="share 4 different words"):
        rouge.score("a b\nc d", "a b\nc d")


def test_a_full_word_table_starts_anew(monkeypatch):
    pair = ("running over the hills", "he runs over a hill")
    expected = rouge.score(*pair)
    monkeypatch.setattr(rouge_tokens, "CACHED_WORDS", 3)
    assert [rouge.score(*pair) for _ in range(3)] == [expected] * 3


def test_the_metric_gives_f_measures_and_counts_words():
    score = load("rouge").score("The cat sat.", "The cats sat down!")
    assert score.values["rougeL"] == rouge.score("The cat sat.", "The cats sat down!").rougeL.fmeasure
    assert (score.values["prediction_words"], score.values["reference_words"]) == (3.0, 4.0)
    assert score.parsed == "The cat sat."


@pytest.mark.parametrize(("prediction", "reason"), [("", "empty"), (" \n", "empty"), ("日本", "no word")])
def test_a_prediction_without_words_is_unparsed_and_scores_zero(prediction, reason):
    score = rouge.judge(prediction, "a cat")
    assert (score.parsed, score.reason) == (None, reason)
    assert [score.values[name] for name in rouge.TYPES] == [0.0] * 4


def test_a_reference_without_words_is_refused():
    with pytest.raises(ValueError, match="or measure chrf: '日本'"):
        rouge.judge("a cat", "日本")


def test_figures_are_means_with_buckets_by_reference_length():
    scores = [rouge.judge("a b", "a b"), rouge.judge("", "a b c"), rouge.judge("x " * 300, "x " * 128)]
    figures = rouge.aggregate(scores)
    assert figures["rouge1"] == pytest.approx((1 + 0 + 2 * 128 / 428) / 3)
    assert figures["length_ratio"] == 302 / 133
    assert figures["unparsed_rate"] == pytest.approx(1 / 3)
    assert (figures["n_ref_0_127"], figures["n_ref_128_511"], figures["n_ref_512_2047"]) == (2.0, 1.0, 0.0)
    assert figures["rougeL_ref_0_127"] == 0.5
    assert "rougeL_ref_512_2047" not in figures
    assert figures.keys() <= set(rouge.METRIC.names)


def test_no_scores_give_no_figures():
    assert rouge.aggregate([]) == {}


def test_a_bucket_begins_at_its_first_length():
    values = dict.fromkeys((*rouge.TYPES, "prediction_words"), 0.0)
    for words, bucket in [
        (127, "ref_0_127"),
        (2047, "ref_512_2047"),
        (2048, "ref_2048_8191"),
        (8192, "ref_8192_up"),
    ]:
        figures = rouge.aggregate([Score(values=values | {"reference_words": float(words)}, parsed="x")])
        assert figures[f"n_{bucket}"] == 1.0


HOSTILE = {
    "one word repeated": lambda size: "spam " * (size // 5),
    "one endless word": lambda size: "y" * size,
    "only newlines": lambda size: "\n" * size,
    "one word to a line": lambda size: "spam\n" * (size // 5),
    "two words to a line": lambda size: "".join(f"the n{number}\n" for number in range(size // 10)),
    "all words distinct": lambda size: " ".join(f"{number:x}ing" for number in range(size // 8)),
    "no word at all": lambda size: "≠ " * (size // 2),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_hostile_predictions_cost_time_in_proportion_to_their_size(shape):
    reference = "\n".join(["the spam of the n7 and n9 is 2aing, is it not"] * 3 + ["the rest is silence"] * 3)
    rouge.score("warm", "up")

    def seconds(size):
        rouge_tokens._tables.clear()
        text = HOSTILE[shape](size)
        # A collection now would walk the heap of the whole test process.
        gc.disable()
        started = time.process_time()
        rouge.score(text, reference)
        spent = time.process_time() - started
        gc.enable()
        return spent

    small, large = seconds(20_000), seconds(200_000)
    assert large < 1.0
    assert large < 30 * max(small, 0.005)
