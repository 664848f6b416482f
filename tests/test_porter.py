import itertools
import random
import string
import subprocess
import sys
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer

from tunebook.metrics import rouge_tokens

NLTK = PorterStemmer().stem

# Every suffix a rule names, and what some rules leave behind.
RULES = """
sses ies ss s ied eed ed ing y e ll l at bl iz ational tional enci anci izer bli abli alli entli eli ousli
ization ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical
ful ness al ance ence er ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize ly
"""
SUFFIXES = RULES.split()
# Letters that rules ask about, beside vowels, y and a digit.
LETTERS = st.sampled_from("aeiouybcdlstwxz1")
STEMS = st.text(LETTERS, max_size=8) | st.text(string.ascii_lowercase + string.digits, max_size=8)
WORDS = st.builds(
    lambda stem, suffixes: stem + "".join(suffixes), STEMS, st.lists(st.sampled_from(SUFFIXES), max_size=3)
)


def stem(word):
    return rouge_tokens.stem(word.encode()).decode()


@settings(max_examples=1500)
@given(WORDS)
@example("")
@example("ies")
@example("ied")
@example("ties")
@example("falling")
@example("hissed")
@example("buzzing")
@example("radicalli")
@example("rationalli")
@example("geologi")
@example("sensibiliti")
@example("y" * 50 + "ing")
def test_every_stem_is_nltks(word):
    assert stem(word) == NLTK(word)


def test_every_short_stem_with_every_suffix_is_nltks():
    stems = ["".join(letters) for size in range(4) for letters in itertools.product("aybls1", repeat=size)]
    words = {start + suffix for start in stems for suffix in SUFFIXES}
    assert len(words) > 15_000
    assert [word for word in words if stem(word) != NLTK(word)] == []


def test_two_suffixes_on_real_words_are_nltks():
    # The steps follow one another, so that one suffix uncovers the next.
    starts = ["re", "form", "nation", "hop", "happ", "contr", "sens", "electr", "w", "fix", "ow", "syzyg"]
    words = {"".join(parts) for parts in itertools.product(starts, SUFFIXES, SUFFIXES)}
    words = set(random.Random(0).sample(sorted(words), 12_000))
    assert [word for word in words if stem(word) != NLTK(word)] == []


def test_nltks_irregular_words_are_known():
    pool = PorterStemmer().pool
    assert {word: stem(word) for word in pool} == pool


def test_words_that_no_rule_changes_are_their_own_stem():
    # `stem` returns at once for endings it does not list; this asks nltk about every one.
    endings = map("".join, itertools.product(string.ascii_lowercase + "0", repeat=3))
    words = ["relat" + ending for ending in endings]
    assert [word for word in words if stem(word) != NLTK(word)] == []


def test_a_word_of_a_megabyte_is_stemmed_within_a_second():
    started = time.process_time()
    assert rouge_tokens.stem(b"y" * 999_999 + b"ing") == b"y" * 999_997 + b"i"
    assert time.process_time() - started < 1.0


def test_scoring_with_stemming_does_not_import_nltk():
    code = "import sys; from tunebook.metrics import rouge; rouge.score('running', 'runs'); print('nltk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
