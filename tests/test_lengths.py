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
from tunebook.data import sources
from tunebook.errors import TunebookError
from tunebook.lengths import batches, counting, cutting, tally, templates
from tunebook.lengths.axolotl_turns import runs
from tunebook.lengths.batches import Form
from tunebook.lengths.measuring import as_engine_reads, iter_batches, measure
from tunebook.lengths.sets import plan_source, source_of
from tunebook.lengths.templates import Message, Thinking

LENGTHS = st.integers(0, 40)
TURNS = st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("model"))


def plan(tmp_path, model, rows, **values):
    registry = datasets.load_registry(make_registry(tmp_path / "data", rows=rows))
    given = {"model_name_or_path": str(model), "template": "qwen3_nothink", **values}
    return plan_source(sources.of_entry(registry.entry("rows")), given)


def quiet(done: int) -> None:
    pass


def sizes_of(tmp_path, model, rows, **values) -> list[tuple[int, int, int]]:
    (one,) = plan(tmp_path, model, rows, **values).sets
    found = []
    for batch in iter_batches(one, max_rows=None, on_bytes=quiet):
        whole = batches.sizes(batch, one.measure.form)
        found += zip(*(part.tolist() for part in whole), strict=True)
    return found


def reference_cut(turns, limit, row_end, newest_first):
    """LLaMA-Factory's loop over the turns of one row, as it stands in its source."""
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
    dropped = cutting.Drop().keep(batch, limit).total
    assert dropped.tolist() == [int(total) if 2 <= total <= limit else 0 for total in batch.total]


@pytest.mark.parametrize(
    ("turns", "limit", "expected"),
    [
        ([(50, 10)], 60, set()),
        ([(51, 10)], 60, {"cut", "header"}),
        ([(10, 51)], 60, {"cut"}),  # the line end behind the end of the turn
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


def test_tokens_are_counted_in_the_template_as_the_engine_puts_it_together(tmp_path, model):
    count = lengths.counter(model)
    question, answer = "Is the plum liked?", "Yes"
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    expected = count([prompt, f"{answer}<|im_end|>\n"])
    assert sizes_of(tmp_path, model, [row(question, answer)]) == [(*expected, sum(expected))]
    system = count(["<|im_start|>system\nBe brief.<|im_end|>\n"])[0]
    with_system = sizes_of(tmp_path, model, [row(question, answer)], default_system="Be brief.")
    assert with_system[0][0] == expected[0] + system


def test_an_empty_thought_stands_in_the_prompt_or_is_learned(tmp_path, model):
    thought = lengths.counter(model)(["<think>\n\n</think>\n\n"])[0]
    rows = [row("Why?", "So.")]
    ((prompt, answer, _),) = sizes_of(tmp_path, model, rows)
    assert sizes_of(tmp_path, model, rows, template="qwen3")[0][:2] == (prompt, answer + thought)
    off = sizes_of(tmp_path, model, rows, template="qwen3", enable_thinking=False)
    assert off[0][:2] == (prompt + thought, answer)


def test_a_thought_is_taken_out_of_an_answer_where_thinking_is_off():
    template = templates.load_template("qwen3")
    said = [Message("user", "Why?"), Message("assistant", "<think>\nhm\n</think>\n\n\nSo.")]
    made = templates.pieces(
        template, said, system="", thinking=Thinking(enable_thinking=False), bos_tokens=0, eos_tokens=1
    )
    assert made[1] == ["So.<|im_end|>\n"]
    assert made[0][-1] == "<think>\n\n</think>\n\n"


def test_one_end_is_put_behind_the_row_where_the_template_closes_no_answer(tmp_path, model):
    count = lengths.counter(model)
    question, answer = count(["Why?", "So.\n\n"])
    found = sizes_of(tmp_path, model, [row("Why?", "So.")], template="fewshot")
    assert found == [(question, answer + 1, question + answer + 1)]


def test_rows_that_the_engine_leaves_out_are_named(tmp_path, model):
    (one,) = plan(tmp_path, model, [row("a"), row("b", None), row("c", 5), row("d")]).sets
    found = measure(one, max_rows=None, on_bytes=quiet)
    assert found.lengths["total"].n == 2
    assert {reason: rows.first for reason, rows in found.skipped.items()} == {
        "the answer is empty": [2],
        "the answer is a int, not text": [3],
    }


def test_packing_leaves_a_token_less(tmp_path, model):
    assert plan(tmp_path, model, [row("a")], cutoff_len=100).sets[0].limit == 100
    assert plan(tmp_path, model, [row("a")], cutoff_len=100, neat_packing=True).sets[0].limit == 99


@pytest.mark.parametrize(
    ("rows", "values", "problem"),
    [
        ([row("a")], {"template": "qwen33"}, "no template 'qwen33'"),
        ([row("a")], {"template": None}, "names no template"),
        ([row("a")], {"stage": "dpo"}, "stage is 'dpo'"),
        ([row("a")], {"model_name_or_path": "nobody/nothing"}, "not on this machine"),
        ([row("a")], {"use_fast_tokenizer": False}, "slow tokenizers"),
        ([{"instruction": "a", "output": "b"}], {}, "has no column input"),
        ([row(5)], {}, "row 1: 'instruction' holds 5, not text"),
        ([], {}, "has no rows"),
        ([row("<image>")], {"template": "qwen2_vl"}, "row 1: a message holds <image>"),
    ],
)
def test_what_cannot_be_measured_is_an_error_and_no_number(tmp_path, model, rows, values, problem):
    with pytest.raises(TunebookError) as caught:
        measure(plan(tmp_path, model, rows, **values).sets[0], max_rows=None, on_bytes=quiet)
    assert problem in caught.value.problem


def test_cells_that_pandas_takes_for_empty_are_empty():
    assert as_engine_reads({"a": "NA", "b": "None", "c": "", "d": "N/A ", "e": "no"}) == {
        "a": None, "b": None, "c": None, "d": "N/A ", "e": "no",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("1+1?,,2\n2+2?,,4\n", "'output' holds nothing but numbers"),
        ("1+1?,,two\n2+2?,,four,4\n", "row 2: has more fields than the header"),
    ],
)
def test_csv_that_the_engines_do_not_read_as_text_is_refused(tmp_path, model, rows, problem):
    folder = make_registry(tmp_path, sums={"file_name": "sums.csv"})
    (folder / "sums.csv").write_text(f"instruction,input,output\n{rows}")
    registry = datasets.load_registry(folder)
    values = {"model_name_or_path": str(model), "template": "qwen3_nothink"}
    (one,) = plan_source(sources.of_entry(registry.entry("sums")), values).sets
    with pytest.raises(TunebookError, match=problem):
        measure(one, max_rows=None, on_bytes=quiet)


@pytest.mark.parametrize("answer", ["2021-05-03", "2021-05-03T10:00:00Z", "2021-05-03 10:00"])
def test_jsonl_answers_that_are_all_dates_are_refused(tmp_path, model, answer):
    folder = make_registry(tmp_path, when={"file_name": "when.jsonl"})
    lines = [json.dumps(row(f"When? {number}", answer)) + "\n" for number in range(3)]
    (folder / "when.jsonl").write_text("".join(lines))
    registry = datasets.load_registry(folder)
    values = {"model_name_or_path": str(model), "template": "qwen3_nothink"}
    (one,) = plan_source(sources.of_entry(registry.entry("when")), values).sets
    with pytest.raises(TunebookError, match="'output' holds nothing but dates"):
        measure(one, max_rows=None, on_bytes=quiet)
    (folder / "when.jsonl").write_text("".join([*lines, json.dumps(row("When?", "In 2021-05")) + "\n"]))
    assert measure(one, max_rows=None, on_bytes=quiet).lengths["total"].n == 4


def test_a_dataset_of_the_hub_is_read_from_the_engines_cache(tmp_path, model, monkeypatch):
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
    values = {"model_name_or_path": str(model), "template": "qwen3_nothink"}
    (one,) = plan_source(source_of(registry.entry("sums")), values).sets
    assert measure(one, max_rows=None, on_bytes=quiet).lengths["total"].n == 4
    assert measure(one, max_rows=3, on_bytes=quiet).lengths["total"].n == 3


def test_runs_of_learned_tokens_become_turns():
    assert runs([False, True, True, False, False, True, False]) == ([(1, 2), (2, 1)], 1)
    assert runs([False, False]) == ([], 2)


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
    count._fast = fastokens.Tokenizer.from_file(str(other / "tokenizer.json"))
    exact = counting.Counter(count.tokenizer)
    exact._fast = None
    texts = ["zq", "the plum saw the brick"]
    assert count(texts) == exact(texts)
    assert not count.fast
    assert count.by.startswith("tokenizers ")


def test_500_texts_are_compared_before_fastokens_is_trusted(model):
    pytest.importorskip("fastokens")
    count = lengths.counter(model)
    count([f"text {number}" for number in range(10)])
    assert count._checked < counting.CHECKED_TEXTS
    count([f"text {number}" for number in range(5000)])
    assert count._checked == counting.CHECKED_TEXTS


def test_a_class_that_transformers_builds_anew_is_refused_until_it_was_saved_by_it(tmp_path):
    make_tokenizer(tmp_path / "hub", tokenizer_class="LlamaTokenizerFast")
    with pytest.raises(TunebookError, match="of class LlamaTokenizerFast"):
        plan(tmp_path, tmp_path / "hub", [row("a")])
    make_tokenizer(tmp_path / "saved", tokenizer_class="LlamaTokenizer", backend="tokenizers")
    assert sizes_of(tmp_path, tmp_path / "saved", [row("a")])


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(TunebookError, match=r"tokenizer\.json"):
        lengths.counter(tmp_path)
