"""`tunebook data import`: what people have becomes rows and entries, or one clear error."""

import bz2
import gzip
import json
import lzma

import pytest
from click.testing import CliRunner

from tunebook.cli.data_import import import_command
from tunebook.errors import TunebookError

TICKETS = [(f"My order {number} is late", "shipping") for number in range(30)] + [
    (f"Refund invoice {number}, please", "billing") for number in range(30)
]


def run(*arguments, folder):
    done = CliRunner().invoke(import_command, [*map(str, arguments), "-o", str(folder)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def rows_of(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def entry_of(folder, name):
    return json.loads((folder / "dataset_info.json").read_text())[name]


def table(separator=",", header=("id", "body", "queue")):
    lines = [separator.join(header)]
    lines += [
        separator.join((str(number), f'"{body}"', queue)) for number, (body, queue) in enumerate(TICKETS)
    ]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(
    ("name", "data", "options", "said"),
    [
        ("t.csv", table().encode(), [], "UTF-8, separated by ','"),
        ("t.csv", table(";").encode("utf-8-sig"), [], "UTF-8, separated by ';'"),
        ("t.csv", ("sep=;\r\n" + table(";")).encode(), [], "separated by ';'"),
        ("t.csv", table("|").encode(), [], "separated by '|'"),
        ("t.tsv", table("\t").encode(), [], "TSV, UTF-8, separated by '\\t'"),
        ("t.csv", table().encode("utf-16"), [], "UTF-16"),
        ("t.csv", table().replace("late", "spät").encode("cp1252"), ["--encoding", "cp1252"], "cp1252"),
        ("t.csv.gz", gzip.compress(table().encode()), [], "CSV"),
        ("t.CSV", table().encode(), [], "CSV"),
    ],
)
def test_a_table_is_read_as_it_was_written_and_says_how(tmp_path, name, data, options, said):
    (tmp_path / name).write_bytes(data)
    out = tmp_path / "out"
    told = run(tmp_path / name, "--question", "body", "--answer", "queue", *options, folder=out)
    assert said in told
    assert "60 rows" in told
    assert "left out: id" in told
    found = rows_of(out, "t")
    late = "spät" if options else "late"
    assert found[0] == {"instruction": f"My order 0 is {late}", "output": "shipping"}
    assert len(found) == 60


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("c.json", lambda rows: json.dumps(rows).encode()),
        ("c.json", lambda rows: json.dumps({"data": rows}).encode()),
        ("c.jsonl", lambda rows: "\n".join(map(json.dumps, rows)).encode()),
        ("c.ndjson.xz", lambda rows: lzma.compress("\n".join(map(json.dumps, rows)).encode())),
        ("c.jsonl.bz2", lambda rows: bz2.compress("\n".join(map(json.dumps, rows)).encode())),
    ],
)
def test_chats_keep_their_form(tmp_path, name, pack):
    turns = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": turns, "system": f"s{number}", "lang": "en"} for number in range(4)]
    (tmp_path / name).write_bytes(pack(rows))
    out = tmp_path / "out"
    assert "left out: lang" in run(tmp_path / name, folder=out)
    assert rows_of(out, "c") == rows
    entry = entry_of(out, "c")
    assert entry["columns"] == {"messages": "messages", "system": "system"}
    assert entry["formatting"] == "sharegpt"


def test_parquet_arrow_folders_and_globs(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    first = pa.table({"question": pa.array(["a", "b"]).cast(pa.string_view()), "answer": ["1", "2"]})
    second = pa.table({"question": ["c"], "answer": ["3"]})
    shards = tmp_path / "shards"
    shards.mkdir()
    pq.write_table(first, shards / "0.parquet")
    with pa.OSFile(str(shards / "1.arrow"), "wb") as file, pa.ipc.new_stream(file, second.schema) as writer:
        writer.write_table(second)
    (shards / "dataset_info.json").write_text("{}")
    told = run(shards, folder=tmp_path / "one")
    assert "0.parquet: 2 rows, PARQUET" in told
    assert [row["question"] for row in rows_of(tmp_path / "one", "shards")] == ["a", "b", "c"]
    run(str(shards / "*.parquet"), "--name", "two", folder=tmp_path / "two")
    assert len(rows_of(tmp_path / "two", "two")) == 2


def test_the_hold_out_measures_and_shares_no_prompt(tmp_path):
    (tmp_path / "t.csv").write_text(table())
    out = tmp_path / "out"
    told = run(tmp_path / "t.csv", "--question", "body", "--answer", "queue", "--holdout", "12", folder=out)
    assert "(48 rows)" in told
    assert "(12 rows); entries t, t_eval (classification of 2 labels)" in told
    assert entry_of(out, "t_eval")["metric"] == {"name": "classification", "labels": ["billing", "shipping"]}
    assert "metric" not in entry_of(out, "t")
    trained, held = ({row["instruction"] for row in rows_of(out, name)} for name in ("t", "t_eval"))
    assert not trained & held
    with pytest.raises(TunebookError, match="already has t"):
        run(tmp_path / "t.csv", "--question", "body", "--answer", "queue", folder=out)


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (["Yes", "No"], "yes_no"),
        (["是", "否"], "yes_no"),
        (["red", "green", "blue"], {"name": "classification", "labels": ["blue", "green", "red"]}),
        ([f"It is {number} #### {number}" for number in range(60)], "gsm8k"),
        ([f"some text {number}" for number in range(60)], None),
        (["always"], None),
    ],
)
def test_a_metric_that_reads_the_answers_is_proposed(tmp_path, answers, metric):
    rows = [{"question": f"q{number}", "answer": answers[number % len(answers)]} for number in range(120)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    run(tmp_path / "d.jsonl", "--holdout", "0.2", folder=out)
    assert entry_of(out, "d_eval").get("metric") == metric


@pytest.mark.parametrize(
    ("name", "data", "options", "said"),
    [
        ("t.csv", table().replace("late", "spät").encode("cp1252"), [], "cp1252 reads"),
        (
            "t.csv",
            b"a,b\n1,2,3\n",
            ["--question", "a", "--answer", "b"],
            "line 2: has 3 fields, the header 2",
        ),
        ("t.csv", b"a,a\n1,2\n", [], "two columns have the same name"),
        ("t.csv", b"body,queue\nx,y\n", [], "unclear which of its columns"),
        (
            "t.csv",
            b"body,queue\nx,y\n",
            ["--question", "text", "--answer", "queue"],
            "there is no column 'text'",
        ),
        ("t.csv", b"body,queue\nx,y\n", ["--question", "body"], "--answer is missing"),
        ("t.jsonl", b'{"question": "a", "answer": "b"}\n{"ques\n', [], "t.jsonl, line 2"),
        ("t.json", b"[1, 2]", [], "row 1: is no object"),
        ("t.xlsx", b"no excel", [], "Excel|openpyxl"),
        ("t.docx", b"x", [], "its name ends in '.docx'"),
        ("t.csv", b"q,a\nx,\n", ["--question", "q", "--answer", "a"], "no row has both"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error_and_writes_nothing(tmp_path, name, data, options, said):
    (tmp_path / name).write_bytes(data)
    out = tmp_path / "out"
    with pytest.raises(TunebookError, match=said) as error:
        run(tmp_path / name, *options, folder=out)
    assert error.value.fix
    assert not out.exists()


def test_a_missing_file_names_what_can_be_read(tmp_path):
    with pytest.raises(TunebookError, match="no such file"):
        run(tmp_path / "none.csv", folder=tmp_path / "out")
