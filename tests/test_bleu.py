import sys

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.metrics import bleu, chrf, load, scripts
from tunebook.metrics.response import shown

WORDS = st.sampled_from(
    ["the", "cat", "sat", "on", "a", "mat", ".", "(1,000)", "naïve", "日本語", "Is", "it?"]
)
# Without thoughts and end tokens, which sacrebleu compares and we do not.
PLAIN = st.text(max_size=20).filter(lambda text: shown(text).text == text.strip())
PREDICTIONS = st.lists(WORDS, max_size=12).map(" ".join) | PLAIN
REFERENCES = (
    st.lists(WORDS, min_size=1, max_size=12)
    .map(" ".join)
    .filter(lambda text: not scripts.mostly_unspaced(text))
)
CORPORA = st.lists(st.tuples(PREDICTIONS, REFERENCES), min_size=1, max_size=6)
PAIR = ("The cat sat on a mat.", "The cat sat on the mat.")


@settings(max_examples=150)
@given(CORPORA)
def test_bleu_of_many_scores_equals_sacrebleu_over_the_corpus(corpus):
    predictions, references = map(list, zip(*corpus, strict=True))
    figures = bleu.aggregate([bleu.score(*pair) for pair in corpus])
    expected = sacrebleu.corpus_bleu(predictions, [references])
    assert figures["bleu"] == expected.score
    assert figures["brevity_penalty"] == expected.bp
    assert figures["length_ratio"] == expected.sys_len / expected.ref_len


@settings(max_examples=150)
@given(CORPORA)
def test_chrf_of_many_scores_equals_sacrebleu_over_the_corpus(corpus):
    predictions, references = map(list, zip(*corpus, strict=True))
    figures = chrf.aggregate([chrf.score(*pair) for pair in corpus])
    assert figures["chrf"] == sacrebleu.corpus_chrf(predictions, [references]).score


@given(PREDICTIONS, REFERENCES)
def test_one_score_equals_sacrebleu_on_the_sentence(prediction, reference):
    expected = sacrebleu.sentence_bleu(prediction, [reference]).score
    assert bleu.score(prediction, reference).values["sentence_bleu"] == expected
    expected = sacrebleu.sentence_chrf(prediction, [reference]).score
    assert chrf.score(prediction, reference).values["sentence_chrf"] == expected


def test_the_signatures_are_those_of_the_published_defaults():
    version = sacrebleu.__version__
    assert bleu.signature() == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert chrf.signature() == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_an_empty_prediction_is_unparsed_and_still_counts(name):
    metric = load(name)
    scores = [metric.score(*PAIR), metric.score(" ", PAIR[1])]
    assert (scores[1].parsed, scores[1].reason, scores[1].values[f"sentence_{name}"]) == (None, "empty", 0.0)
    figures = metric.aggregate(scores)
    assert figures["unparsed_rate"] == 0.5
    assert figures[name] < metric.aggregate(scores[:1])[name]
    assert set(figures) == set(metric.names)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_an_empty_reference_is_refused(name):
    with pytest.raises(ValueError, match="the reference is blank"):
        load(name).score("a", " ")


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_no_scores_give_no_figures(name):
    assert load(name).aggregate([]) == {}


@pytest.mark.parametrize(("module", "cached"), [(bleu, bleu._bleu), (chrf, chrf._chrf)])
def test_without_sacrebleu_the_error_says_what_to_install(monkeypatch, module, cached):
    cached.cache_clear()
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(TunebookError, match="pip install sacrebleu"):
        module.score(*PAIR)
    monkeypatch.undo()
    cached.cache_clear()
    assert module.score(*PAIR).parsed == PAIR[0]
