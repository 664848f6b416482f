import gc
import itertools
import random
import sys
import time

import pytest
import rouge_score_rs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

from tunebook.errors import TunebookError
from tunebook.metrics import load, rouge, rouge_lanes, rouge_lsum, rouge_tokens
from tunebook.metrics.rouge_lanes import Block, taken_counts
from tunebook.metrics.rouge_lcs import lcs_length, match_masks, taken_along_candidate, taken_along_reference
from tunebook.types import Score

GOOGLE = {stem: rouge_scorer.RougeScorer(list(rouge.TYPES), use_stemmer=stem) for stem in (True, False)}
RUST = {stem: rouge_score_rs.RougeScorer(list(rouge.TYPES), use_stemmer=stem) for stem in (True, False)}
ALWAYS_LANES = -1.0
NEVER_LANES = float("inf")

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


@settings(max_examples=250, deadline=None)
@given(TEXTS, TEXTS, st.booleans())
@example("a x", "a a", False)
@example("", "", True)
@example("\n\n", "a\n \nb", True)
@example("a b\nb a", "b a", True)
def test_every_score_equals_rouge_score_to_the_last_bit(prediction, reference, stem):
    expected = plain(GOOGLE[stem].score(reference, prediction))
    assert rouge.score(prediction, reference, use_stemmer=stem) == expected


def test_thousands_of_random_pairs_equal_rouge_score_by_every_route(monkeypatch):
    rng = random.Random(3)
    for round_number in range(9):
        estimate = (None, ALWAYS_LANES, NEVER_LANES)[round_number % 3]
        stem = round_number % 2 == 0
        pairs = []
        for _ in range(400):
            size = rng.choice([1, 2, 3, 5, 12])
            odd = rng.sample([*PLAIN_WORDS, *ODD_WORDS], size)
            vocabulary = odd if rng.random() < 0.5 else [f"w{number}" for number in range(size)]
            shapes = [(rng.choice([0, 1, 2, 3, 6]), rng.choice([1, 4, 12, 31])) for _ in range(2)]
            pairs.append(tuple(random_text(rng, vocabulary, lines, longest) for lines, longest in shapes))
        expected = [plain(GOOGLE[stem].score(reference, prediction)) for prediction, reference in pairs]
        with monkeypatch.context() as patch:
            if estimate is not None:
                patch.setattr(rouge_lsum, "estimated_us", lambda _, value=estimate: value)
            assert rouge.score_many(pairs, use_stemmer=stem) == expected


@pytest.mark.parametrize("estimate", [ALWAYS_LANES, NEVER_LANES])
def test_sentences_of_up_to_700_words_equal_rouge_score(monkeypatch, estimate):
    monkeypatch.setattr(rouge_lsum, "estimated_us", lambda _: estimate)
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


@settings(max_examples=250, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=14), st.lists(st.integers(0, 5), max_size=14))
def test_both_orientations_take_the_positions_rouge_score_takes(reference, candidate):
    taken = sum(1 << position for position in set(rouge_scorer.lcs_ind(reference, candidate)))
    assert taken_along_reference(match_masks(reference), len(reference), candidate) == taken
    assert taken_along_candidate(reference, match_masks(candidate), len(candidate)) == taken
    assert lcs_length(reference, candidate) == taken.bit_count()


@pytest.mark.parametrize("length", [29, 30, 31, 59, 60, 61, 91])
def test_lanes_take_the_same_positions_where_a_lane_word_ends(length):
    # A match at the last position of a word carries into the next one, or out of the sentence.
    rng = random.Random(length)
    for alphabet in (1, 2, 9):
        references = [tuple(rng.choices(range(1, alphabet + 1), k=length)) for _ in range(3)]
        candidates = [(*rng.choices(range(alphabet + 1), k=rng.randint(1, 120)), 1) for _ in range(5)]
        (counts,) = taken_counts([Block(references, [1, 2, 1], candidates, alphabet)])
        expected = [0] * (alphabet + 1)
        for reference, repeats in zip(references, [1, 2, 1], strict=True):
            union = set().union(*(rouge_scorer.lcs_ind(reference, candidate) for candidate in candidates))
            for position in union:
                expected[reference[position]] += repeats
        assert counts == expected


def test_slabs_and_chunks_of_lanes_do_not_change_a_score(monkeypatch):
    rng = random.Random(6)
    pairs = [(english_like(rng, 400), english_like(rng, 500)) for _ in range(3)]
    expected = rouge.score_many(pairs)
    monkeypatch.setattr(rouge_lsum, "estimated_us", lambda _: ALWAYS_LANES)
    monkeypatch.setattr(rouge_lanes, "LANES", 40)
    monkeypatch.setattr(rouge_lanes, "SLAB", 7)
    assert rouge.score_many(pairs) == expected
    monkeypatch.setattr(rouge_lsum, "GROUP_LANES", 300)
    monkeypatch.setattr(rouge, "BATCH_WORDS", 1000)
    assert rouge.score_many(pairs) == expected


def test_words_that_are_not_shown_to_the_stemmer_are_their_own_stem():
    stem = PorterStemmer().stem
    letters = "abcdefghijklmnopqrstuvwxyz0"
    for ending in map("".join, itertools.product(letters, repeat=3)):
        word = "relat" + ending
        if not word.endswith(rouge_tokens._STEMMABLE):
            assert stem(word) == word


def test_a_full_word_table_starts_anew(monkeypatch):
    pair = ("running over the hills", "he runs over a hill")
    expected = rouge.score(*pair)
    monkeypatch.setattr(rouge_tokens, "CACHED_WORDS", 3)
    assert [rouge.score(*pair) for _ in range(3)] == [expected] * 3


def test_stemming_without_nltk_says_what_to_install(monkeypatch):
    monkeypatch.setattr(rouge_tokens, "_tables", {})
    monkeypatch.setitem(sys.modules, "nltk.stem.porter", None)
    with pytest.raises(TunebookError, match="pip install nltk"):
        rouge.score("a", "a")
    assert rouge.score("a", "a", use_stemmer=False).rouge1.fmeasure == 1.0


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
    with pytest.raises(ValueError, match="holds none: '日本'"):
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
    assert figures.keys() <= set(rouge.METRIC.figures)


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
