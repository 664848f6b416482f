"""What evaluation makes of tokenised rows, without an engine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.hooks.rows import common_suffix, read_rows, spans
from tunebook.scoring.figures import RowLoss, loss_figures
from tunebook.types import IGNORED

STOP = 9
HEADER = (7, 8)


class Rows(list):
    """Enough of a `datasets.Dataset`: a slice gives columns."""

    def __getitem__(self, key):
        if isinstance(key, slice):
            return {
                name: [row[name] for row in super(Rows, self).__getitem__(key)]
                for name in ("input_ids", "labels")
            }
        return super().__getitem__(key)


def row(prompt: list[int], answer: list[int]) -> dict:
    return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED] * len(prompt), *answer]}


def read(rows, limit=6, header=()):
    return read_rows(
        Rows(rows),
        name="set",
        stop_ids=frozenset({STOP}),
        length_limit=limit,
        prompt_loss_key="train_on_prompt",
        header=header,
    )


@given(st.lists(st.sampled_from([IGNORED, 3]), max_size=40))
def test_spans_cover_exactly_the_supervised_positions(labels):
    covered = [position for span in spans(labels) for position in range(span.start, span.end)]
    assert covered == [position for position, label in enumerate(labels) if label != IGNORED]
    assert all(left.end < right.start for left, right in zip(spans(labels), spans(labels)[1:], strict=False))


def test_the_answer_is_the_last_supervised_span():
    labels = [IGNORED, 4, STOP, IGNORED, IGNORED, 5, STOP]
    found = read([{"input_ids": [1, 4, STOP, 2, 7, 5, STOP], "labels": labels}], limit=99)[0]
    assert (found.answer.start, list(found.answer_ids)) == (5, [5, STOP])
    assert found.label_tokens == 4


def test_a_row_that_lost_its_end_is_cut_and_one_that_fits_exactly_is_not():
    whole = row([1, 7, 8], [4, STOP])
    exact = row([1, 2, 7, 8], [4, STOP])
    tail_lost = row([1, 2, 7, 8], [4, 4])
    assert [r.cut for r in read([whole, exact, tail_lost])] == [False, False, True]


def test_a_row_that_lost_its_assistant_header_is_cut():
    whole = [row([question, 7, 8], [4, STOP]) for question in range(8)]
    header_lost = row([1, 2, 3, 2], [4, STOP])
    assert [r.cut for r in read([*whole, header_lost])] == [*[False] * 8, True]


def test_rows_that_all_reach_the_limit_are_judged_by_the_templates_own_header():
    header_lost = row([1, 2, 3, 2], [4, STOP])
    assert [r.cut for r in read([header_lost, header_lost], header=HEADER)] == [True, True]


def test_a_short_row_is_never_cut_whatever_it_looks_like():
    odd = row([1, 2], [4])
    assert [r.cut for r in read([odd, row([1, 7, 8], [4, STOP])])] == [False, False]


def test_a_row_without_any_label_is_cut():
    assert read([row([1, 2, 7, 8, 4, STOP], []), row([7, 8], [4, STOP])])[0].cut


def test_loss_on_prompts_is_refused_with_the_key():
    with pytest.raises(TunebookError, match="train_on_prompt: false"):
        read([row([], [4, STOP])])


def test_an_empty_set_is_refused():
    with pytest.raises(TunebookError, match="has no rows"):
        read([])


@given(st.lists(st.lists(st.integers(0, 2), max_size=5).map(tuple), min_size=1, max_size=6))
def test_a_common_suffix_is_common_and_cannot_be_longer(sequences):
    suffix = common_suffix(sequences)
    assert all(sequence[len(sequence) - len(suffix) :] == suffix for sequence in sequences)
    longer = {
        sequence[len(sequence) - len(suffix) - 1 :][:1]
        for sequence in sequences
        if len(sequence) > len(suffix)
    }
    assert len(longer) > 1 or any(len(sequence) == len(suffix) for sequence in sequences)


def test_perplexity_weighs_tokens_and_loss_weighs_batches_as_the_trainer_does():
    rows = [
        RowLoss(nll=2.0, tokens=1, hits=0),
        RowLoss(nll=1.0, tokens=3, hits=3),
        RowLoss(nll=6.0, tokens=2, hits=1),
    ]
    found = loss_figures(rows, batch_size=2)
    assert found.perplexity == pytest.approx(math.exp(9 / 6))
    assert found.loss == pytest.approx((3 / 4 + 6 / 2) / 2)
    assert found.token_accuracy == pytest.approx((0 + 1 + 0.5) / 3)


def test_an_exploded_loss_has_no_perplexity_rather_than_a_wrong_one():
    assert loss_figures([RowLoss(nll=1e6, tokens=1, hits=0)], batch_size=1).perplexity is None


def test_nothing_to_measure_is_an_error():
    with pytest.raises(TunebookError, match="no evaluation row has a supervised token"):
        loss_figures([RowLoss(nll=0.0, tokens=0, hits=0)], batch_size=1)
