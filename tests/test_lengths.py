import json

import numpy as np
import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lengths_cases import make_registry, make_tokenizer, row
from tunebook import lengths
from tunebook.data import registry as datasets
from tunebook.errors import TunebookError
from tunebook.lengths import batches, counting, cutting, tally
from tunebook.lengths.batches import Form
from tunebook.lengths.reading import as_engine_reads, read_rows
from tunebook.lengths.sets import source_of

LENGTHS = st.integers(0, 40)
TURNS = st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("model"))


def reference_cut(turns, limit, row_end, newest_first):
    """LLaMA-Factory's loop over the turns of one row, as in its source."""
    kept, used = [(0, 0)] * len(turns), row_end
    order = range(len(turns))
    for place in reversed(order) if newest_first else order:
        if used >= limit:
            break
        source, target = turns[place]
        room = limit - used
        if target * 2 < room:
            most = room
        elif source * 2 < room:
            most = room - source
        else:
            most = int(room * (target / (source + target)))
        target_kept = min(most, target)
        source_kept = min(max(room - target_kept, 0), source)
        kept[place] = (source_kept, target_kept)
        used += source_kept + target_kept
    return kept


@given(st.lists(TURNS, min_size=1, max_size=4), st.integers(1, 90), st.integers(0, 1), st.booleans())
@example([[(30, 60)]], 60, 0, False)
@example([[(60, 30)]], 60, 0, False)
def test_long_rows_are_cut_as_llamafactory_cuts_them(rows, limit, row_end, newest_first):
    batch = batches.pack(range(1, len(rows) + 1), rows, [0] * len(rows), [])
    kept = cutting.Proportional(row_end, newest_first).keep(batch, limit)
    for at, turns in enumerate(rows):
        pairs = list(zip(kept.prompts[at].tolist(), kept.answers[at].tolist(), strict=True))[: len(turns)]
        assert pairs == reference_cut(turns, limit, row_end, newest_first)


@given(st.lists(TURNS, min_size=1, max_size=4), st.integers(1, 90))
def test_truncation_keeps_the_first_tokens_and_dropping_keeps_all_or_none(rows, limit):
    batch = batches.pack(range(1, len(rows) + 1), rows, [3] * len(rows), [])
    kept = cutting.First().keep(batch, limit)
    assert kept.total.tolist() == [min(limit, int(total)) for total in batch.total]
    kept = cutting.First(shortest=2).keep(batch, limit)
    assert kept.total.tolist() == [min(limit, int(total)) if total >= 2 else 0 for total in batch.total]
    dropped = cutting.Drop().keep(batch, limit).total
    assert dropped.tolist() == [int(total) if 2 <= total <= limit else 0 for total in batch.total]


@given(st.lists(TURNS, max_size=40), st.integers(1, 7))
def test_rows_in_one_list_are_the_same_rows_in_parts(rows, size):
    numbers, turns = np.arange(1, len(rows) + 1), np.array([len(row) for row in rows], np.int64)
    flat = np.array([pair for row in rows for pair in row], np.int64).reshape(-1, 2)
    parts = list(batches.in_parts(numbers, turns, flat, np.ones(len(rows), np.int64), rows=size))
    assert [number for part in parts for number in part.rows.tolist()] == numbers.tolist()
    totals = [int(total) for part in parts for total in part.total]
    assert totals == [1 + sum(map(sum, row)) for row in rows]


@pytest.mark.parametrize(
    ("turns", "limit", "expected"),
    [
        ([(50, 10)], 60, set()),
        ([(51, 10)], 60, {"cut", "header"}),
        ([(10, 51)], 60, {"cut"}),  # the line end after the end of the turn
        ([(10, 52)], 60, {"cut", "end"}),
        ([(10, 53)], 60, {"cut", "end", "answer"}),
        ([(40, 60)], 60, {"cut", "header", "end", "answer"}),
        ([(30, 30), (20, 9)], 60, {"cut", "turn"}),
        ([(100, 0)], 60, {"cut", "header"}),
    ],
)
def test_what_a_row_loses_is_told_apart(turns, limit, expected):
    batch = batches.pack([1], [turns], [0], [])
    form = Form(closing=2, after_end=1)
    lost = cutting.losses(batch, cutting.Proportional(0, newest_first=False).keep(batch, limit), form)
    assert {name for name, rows in lost.items() if rows[0]} == expected


def test_a_row_that_axolotl_drops_is_dropped_and_nothing_else():
    batch = batches.pack([1, 2], [[(9, 9)], [(99, 9)]], [0, 0], [])
    lost = cutting.losses(batch, cutting.Drop().keep(batch, 50), Form())
    assert {name: rows.tolist() for name, rows in lost.items() if rows.any()} == {"dropped": [False, True]}


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60))
def test_percentiles_are_lengths_of_rows(lengths_of_rows):
    histogram = tally.Histogram()
    for length in lengths_of_rows:
        histogram.add(np.array([length]))
    for percent in tally.PERCENTILES:
        wanted = np.percentile(lengths_of_rows, percent, method="inverted_cdf")
        assert histogram.percentile(percent) == wanted
    summary = histogram.summary()
    assert (summary["min"], summary["max"]) == (min(lengths_of_rows), max(lengths_of_rows))
    assert summary["mean"] == pytest.approx(np.mean(lengths_of_rows), abs=0.01)
    assert sum(histogram.bins(7)) == len(lengths_of_rows)


def test_the_suggested_limit_keeps_99_percent_or_everything_where_that_is_cheap():
    def suggest(rows):
        made = tally.Tally(Form(), cutting.Drop(), 64)
        made.add(batches.pack(range(len(rows)), [[(length, 1)] for length in rows], [0] * len(rows), []))
        return made.suggested()

    assert suggest([99] * 999 + [5000]) == {"limit": 128, "whole_share": 0.999}
    assert suggest([1000] * 999 + [1200]) == {"limit": 1216, "whole_share": 1.0}


def test_cells_that_pandas_takes_for_empty_are_empty():
    assert as_engine_reads({"a": "NA", "b": "None", "c": "", "d": "N/A ", "e": "no"}) == {
        "a": None, "b": None, "c": None, "d": "N/A ", "e": "no",
    }  # fmt: skip


def read(folder, name: str, columns=("instruction", "output")) -> list[dict]:
    entry = datasets.load_registry(folder).entry(name)
    return list(read_rows(source_of(entry).files, columns, name))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("1+1?,,2\n2+2?,,4\n", "'output' holds nothing but numbers"),
        ("1+1?,,two\n2+2?,,four,4\n", "line 3: a row of 4 fields under a header of 3"),
    ],
)
def test_csv_that_the_engines_do_not_read_as_text_is_refused(tmp_path, rows, problem):
    folder = make_registry(tmp_path, sums={"file_name": "sums.csv"})
    (folder / "sums.csv").write_text(f"instruction,input,output\n{rows}")
    with pytest.raises(TunebookError, match=problem):
        read(folder, "sums")


@pytest.mark.parametrize("answer", ["2021-05-03", "2021-05-03T10:00:00Z", "2021-05-03 10:00"])
def test_jsonl_answers_that_are_all_dates_are_refused(tmp_path, answer):
    folder = make_registry(tmp_path, when={"file_name": "when.jsonl"})
    lines = [json.dumps(row(f"When? {number}", answer)) + "\n" for number in range(3)]
    (folder / "when.jsonl").write_text("".join(lines))
    with pytest.raises(TunebookError, match="'output' holds nothing but dates"):
        read(folder, "when")
    (folder / "when.jsonl").write_text("".join([*lines, json.dumps(row("When?", "In 2021-05")) + "\n"]))
    assert len(read(folder, "when")) == 4


def test_a_dataset_of_the_hub_is_read_from_the_engines_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    entry = {"hf_hub_url": "openai/FooBar", "subset": "main", "split": "test"}
    columns = {"columns": {"prompt": "question", "response": "answer"}}
    registry = datasets.load_registry(make_registry(tmp_path / "data", sums={**entry, **columns}))
    with pytest.raises(TunebookError, match="no engine has loaded it"):
        source_of(registry.entry("sums"))
    folder = tmp_path / "cache" / "openai___foo_bar" / "main" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    for shard in range(2):
        table = pyarrow.table({"question": [f"{shard}+1?", "Why?"], "answer": ["So.", "Yes"]})
        file = folder / f"foo_bar-test-0000{shard}-of-00002.arrow"
        with pyarrow.ipc.new_stream(str(file), table.schema) as stream:
            stream.write_table(table)
    (folder / "foo_bar-train.arrow").write_bytes(b"")
    found = read(tmp_path / "data", "sums", columns=("question",))
    assert [one["question"] for one in found] == ["0+1?", "Why?", "1+1?", "Why?"]


def test_the_counter_counts_as_the_tokenizer_does(model):
    count = lengths.counter(model)
    texts = ["the plum", "", "日本語", "<|im_start|>user\n", *(f"row {number}" for number in range(600))]
    exact = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert count(texts) == [len(exact.encode(text, add_special_tokens=False).ids) for text in texts]


def test_fastokens_is_put_away_at_the_first_difference(tmp_path, model):
    fastokens = pytest.importorskip("fastokens")
    count = lengths.counter(model)
    assert count.fast
    # The same alphabet with other merges: it differs on some texts, and not on others.
    other = make_tokenizer(tmp_path, corpus="violin candle walnut " * 20)
    count._encode._fast = fastokens.Tokenizer.from_file(str(other / "tokenizer.json"))
    exact = counting.Counter(count.tokenizer)
    exact._encode = None
    texts = ["zq", "the plum saw the brick"]
    assert count(texts) == exact(texts)
    assert not count.fast
    assert count.by.startswith("tokenizers ")


def test_500_texts_are_compared_before_fastokens_is_trusted_and_a_hundredth_after(model):
    pytest.importorskip("fastokens")
    count = lengths.counter(model)
    count([f"text {number}" for number in range(10)])
    assert count._encode.compared < counting.CHECKED_TEXTS
    count([f"text {number}" for number in range(5000)])
    assert 45 <= count._encode.compared - counting.CHECKED_TEXTS <= 50


def test_an_encoder_gives_the_tokens_of_the_engine_or_stops(tmp_path, model):
    fastokens = pytest.importorskip("fastokens")
    exact = Tokenizer.from_file(str(model / "tokenizer.json"))

    def ids(text: str) -> list[int]:
        return exact.encode(text, add_special_tokens=False).ids

    encode = counting.CheckedEncoder(exact, ids)
    texts = [f"the plum saw brick {number}<|im_end|>" for number in range(2000)]
    assert [encode(text) for text in texts] == [ids(text) for text in texts]
    assert counting.CHECKED_TEXTS <= encode.compared < len(texts) / 2
    # The same alphabet with other merges, after all the first texts were alike: it is found later on.
    other = make_tokenizer(tmp_path, corpus="violin candle walnut " * 20)
    encode._fast = fastokens.Tokenizer.from_file(str(other / "tokenizer.json"))
    with pytest.raises(counting.FastDiffers):
        list(map(encode, texts[:200]))


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(TunebookError, match=r"tokenizer\.json"):
        lengths.counter(tmp_path)
