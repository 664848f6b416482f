"""What is kept of an evaluation that is killed, and what is made of it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.evaluation.finalise import finalise, missing
from tunebook.evaluation.journal import Journal, JournalPart
from tunebook.evaluation.records import Answered, Generated, SetHeader, SetRow
from tunebook.types import MetricSpec

ROWS = 9
HEADER = SetHeader(
    dataset="likes",
    metrics=(MetricSpec(name="yes_no", max_new_tokens=4),),
    mode="generate",
    classes_of="yes_no",
    max_new_tokens=4,
    loss_batch_size=4,
    rows=ROWS,
)
SET = [
    SetRow(
        index=index,
        prompt=f"Is {index} even?\u2028é",  # a line separator is no end of a line of JSON
        reference="No" if index % 2 else "Yes",
        prompt_tokens=7,
        answer_cut=False,
        measured=True,
        scored=index != 3,
    )
    for index in range(ROWS)
]
BATCHES = [[0, 4, 2], [1, 8, 7], [3, 5, 6]]


def answered(index: int) -> Answered:
    logprobs = (-0.25 - index, -1.5)
    return Answered(
        index=index,
        nll=0.1 * index + 1 / 3,
        tokens=2,
        hits=1,
        prediction="Yes\n",
        class_logprobs=logprobs,
    )


def generated(index: int) -> Generated:
    return Generated(
        index=index, prediction=["Yes", "No", "", "é\n"][index % 4], tokens=index, cut=index == 2
    )


def work(journal: Journal, *, shard: int = 0, batches=BATCHES) -> None:
    """Do what is not done yet, as the process of the engine does."""
    done = journal.finished()
    with JournalPart(journal, shard=shard, rank=0) as part:
        for batch in batches:
            if not set(batch) <= set(done.answered):
                part.append([answered(index) for index in batch])
        for batch in batches:
            wanted = [index for index in batch if SET[index].scored]
            if not set(wanted) <= set(done.generated):
                part.append([generated(index) for index in wanted])


def answers(journal: Journal):
    return journal.header(), journal.rows(), journal.finished()


def result(journal: Journal):
    return finalise(*answers(journal), step=40)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    journal = Journal(tmp_path_factory.mktemp("whole"))
    journal.begin(HEADER, SET)
    work(journal)
    return journal


@settings(max_examples=60)
@given(cuts=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_killed_at_any_byte_and_any_number_of_times_it_comes_out_the_same(whole, tmp_path_factory, cuts):
    journal = Journal(tmp_path_factory.mktemp("killed"))
    journal.begin(HEADER, SET)
    for cut in cuts:
        work(journal)
        part = journal.folder / "part-0-0.jsonl"
        content = part.read_bytes()
        part.write_bytes(content[: round(cut * len(content))])
        journal.finished()  # a torn line is no error
    work(journal)
    # The figures are made of these alone, and intervals take their time.
    assert answers(journal) == answers(whole)


def test_every_single_byte(whole, tmp_path):
    content = (whole.folder / "part-0-0.jsonl").read_bytes()
    lines = content.count(b"\n")
    journal = Journal(tmp_path)
    journal.begin(HEADER, SET)
    for size in range(len(content) + 1):
        (tmp_path / "part-0-0.jsonl").write_bytes(content[:size])
        assert lines - missing(HEADER, SET, journal.finished()) == content[:size].count(b"\n")


def test_shards_together_give_what_one_process_gives(whole, tmp_path):
    journal = Journal(tmp_path)
    journal.begin(HEADER, SET)
    work(journal, shard=1, batches=BATCHES[1::2])
    assert missing(HEADER, SET, journal.finished()) == ROWS + ROWS - 1 - 6
    with pytest.raises(ValueError, match="are missing"):
        finalise(HEADER, SET, journal.finished(), step=40)
    journal.begin(HEADER, SET)  # each shard may begin
    work(journal, shard=0, batches=BATCHES[0::2])
    assert answers(journal) == answers(whole)
    assert result(journal) == result(whole)


def test_the_figures_are_of_these_answers(whole):
    found = result(whole)
    right = sum(generated(row.index).prediction == row.reference for row in SET if row.scored)
    assert found.values["accuracy"] == right / (ROWS - 1)
    assert found.n == ROWS - 1
    assert found.unparsed_reasons["cut by max_new_tokens"] == 1
    assert found.values["generation_cut_rate"] == 1 / (ROWS - 1)
    low, high = found.intervals["accuracy"]
    assert low < found.values["accuracy"] < high
    assert found.select_by in found.values


def test_other_rows_are_not_mixed_with_what_is_kept(whole):
    with pytest.raises(TunebookError, match="keeps answers to other rows of likes"):
        whole.begin(HEADER, SET[:-1])


def test_two_processes_do_not_write_one_part(whole):
    with JournalPart(whole, shard=5, rank=0), pytest.raises(TunebookError, match="another evaluation"):
        JournalPart(whole, shard=5, rank=0)


def test_a_line_that_is_whole_and_damaged_is_named(whole, tmp_path):
    journal = Journal(tmp_path)
    journal.begin(HEADER, SET)
    work(journal)
    part = tmp_path / "part-0-0.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"nll"', b'"nl')
    part.write_bytes(b"".join(lines))
    with pytest.raises(TunebookError, match=r"part-0-0.jsonl, line 3: is damaged"):
        journal.finished()


def test_a_long_torn_line_is_cut_off(tmp_path):
    journal = Journal(tmp_path)
    journal.begin(HEADER, SET)
    (tmp_path / "part-0-0.jsonl").write_bytes(
        b'{"torn": "' + random.Random(0).randbytes(200_000).hex().encode()
    )
    work(journal)
    assert missing(HEADER, SET, journal.finished()) == 0
