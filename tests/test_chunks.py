"""Documents cut into pieces: nothing lost, never too long, at the best border there is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_files import byte_level, with_blanks
from tunebook.errors import TunebookError
from tunebook.lengths.chunks import tokens
from tunebook.lengths.chunks.cutting import Cutter

PROSE = st.sampled_from(
    [
        "The court ",
        "finds.",
        "\n\n",
        "\n",
        " ",
        "plums, ",
        "a" * 90,
        "漢字。",
        "かな",
        "😀",
        "e\u0301",
        "\r\n",
        '." ',
    ]
)
DOCUMENTS = st.one_of(st.lists(PROSE, max_size=120).map("".join), st.text(max_size=300))


@pytest.fixture(scope="module", params=[byte_level, with_blanks], ids=["bytes", "blanks"])
def tokenizer(request, tmp_path_factory):
    return tokens.load(request.param(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return tokens.load(byte_level(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"))


def texts_of(text, pieces):
    return [text[piece.start : piece.end] for piece in pieces]


@settings(max_examples=60)
@given(texts=st.lists(DOCUMENTS, min_size=1, max_size=3), limit=st.integers(24, 80), share=st.floats(0, 0.5))
def test_the_pieces_without_their_overlaps_are_the_document(tokenizer, texts, limit, share):
    cutter = Cutter(tokenizer, limit, int(limit * share))
    for text, pieces in zip(texts, cutter.cut(texts), strict=True):
        assert "".join(text[piece.start + piece.overlap : piece.end] for piece in pieces) == text
        assert pieces[0].start == 0
        assert pieces[-1].end == len(text)
        assert [piece.tokens for piece in pieces] == tokenizer.count(texts_of(text, pieces))
        assert max(piece.tokens for piece in pieces) <= limit
        # Each brings something new, except where the document is empty.
        assert all(piece.end - piece.start > piece.overlap for piece in pieces) or not text


def test_a_piece_ends_at_a_paragraph_then_a_sentence_then_a_word(words):
    sentence = "The court finds that the plaintiff did not pay the rent."
    size = words.count([sentence])[0]
    paragraphs = [" ".join([sentence] * 3)] * 4
    cutter = Cutter(words, size * 4)
    text = "\n\n".join(paragraphs)
    assert (
        texts_of(text, cutter.cut([text])[0]) == [f"{part}\n\n" for part in paragraphs[:-1]] + paragraphs[-1:]
    )

    text = " ".join([sentence] * 20)
    assert all(part.rstrip().endswith("rent.") for part in texts_of(text, cutter.cut([text])[0]))

    text = "rent plums " * 200
    assert {part.split()[-1] for part in texts_of(text, cutter.cut([text])[0])} <= {"rent", "plums"}


def test_a_border_too_far_back_is_not_taken(words):
    """Only in the second half of a piece: a heading must not become a piece of its own."""
    text = "Title.\n\n" + "the rent " * 100
    first = Cutter(words, 64).cut([text])[0][0]
    assert first.end > len("Title.\n\n")


def test_a_run_without_any_border_is_cut_at_token_borders(words):
    text = "q7z" * 400
    pieces = Cutter(words, 50).cut([text])[0]
    assert len(pieces) > 1
    assert min(piece.tokens for piece in pieces[:-1]) >= 40


def test_pieces_are_full_with_either_kind_of_tokenizer(tokenizer):
    text = "The court finds that the plaintiff, who had signed the lease, did not pay. " * 200
    pieces = Cutter(tokenizer, 200).cut([text])[0]
    assert sum(piece.tokens for piece in pieces[:-1]) > 0.8 * 200 * len(pieces[:-1])


def test_the_overlap_begins_at_a_sentence_and_is_no_longer_than_asked(words):
    sentence = "The court finds that the plaintiff did not pay the rent. "
    text = sentence * 60
    size = words.count([sentence])[0]
    pieces = Cutter(words, size * 8, size * 2 + 3).cut([text])[0]
    for piece in pieces[1:]:
        shared = text[piece.start : piece.start + piece.overlap]
        assert shared.startswith("The court")
        assert 0 < words.count([shared])[0] <= size * 2 + 3


def test_documents_are_cut_alike_one_by_one_and_together(words):
    texts = ["The court. " * 300, "", "漢字。" * 200, "short"]
    together = Cutter(words, 60, 10).cut(texts)
    assert together == [Cutter(words, 60, 10).cut([text])[0] for text in texts]


def test_memory_of_words_is_given_up_when_it_is_full(words, monkeypatch):
    cutter = Cutter(words, 60)
    texts = ["The court finds. " * 50, "Another plum, and another. " * 50]
    usual = [cutter.cut([text])[0] for text in texts]
    monkeypatch.setattr("tunebook.lengths.chunks.cutting._KEPT_CHARACTERS", 5)
    assert [cutter.cut([text])[0] for text in texts] == usual


def test_one_character_may_be_too_much():
    class Greedy:
        def count(self, texts):
            return [40 * len(text) for text in texts]

        count_words = count

        def starts(self, text):
            return [n for n in range(len(text)) for _ in range(40)]

    with pytest.raises(ValueError, match="single character"):
        Cutter(Greedy(), 8).cut(["abc"])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(TunebookError, match=r"holds no tokenizer\.json"):
        tokens.tokenizer_file(str(tmp_path))
    with pytest.raises(TunebookError, match="no such file or folder"):
        tokens.tokenizer_file("nobody/nothing-at-all")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TunebookError, match="cannot read it as a tokenizer"):
        tokens.load(tokens.tokenizer_file(str(tmp_path)))


def test_a_downloaded_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--model"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    wanted = byte_level(folder / "snapshots" / "abc" / "tokenizer.json")
    assert tokens.tokenizer_file("some/model") == wanted
