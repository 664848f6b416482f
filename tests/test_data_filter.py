import csv
import io
import json
import subprocess
import sys
import time

import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from lengths_cases import answer_here, make_registry, make_tokenizer, row
from tunebook.cli.data_filter import filter_rows
from tunebook.errors import TunebookError
from tunebook.files import sha256_of

NASTY = ['say ""hi""', "a\nb", "comma, here", "ünï", "日本語", "", "NA", "  ", "\\", "tab\there", "'"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("model"))


def run(*arguments):
    result = CliRunner().invoke(filter_rows, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def token_filter(model, tmp_path, tmp_path_factory, monkeypatch):
    """A function that filters an entry of `tmp_path/data` by tokens, and gives what was printed."""
    answer_here(monkeypatch, tmp_path_factory.getbasetemp() / "rows")

    def call(name, *options):
        given = ("--dataset-dir", tmp_path / "data", "--model", model, "--template", "qwen3_nothink")
        return json.loads(run(name, *given, *options, "--json").output)[0]

    return call


@pytest.fixture
def filter_here(tmp_path):
    """The same by characters, which need no engine."""

    def call(name, *options):
        return json.loads(run(name, "--dataset-dir", tmp_path / "data", *options, "--json").output)[0]

    return call


@pytest.mark.engine
def test_characters_and_tokens_disagree_on_mixed_scripts(tmp_path, token_filter):
    # Thirty letters that are few tokens, and ten that are thirty bytes and as many tokens.
    rows = [row("the plum saw the river the brick"), row("日本語の文章です。か")]
    make_registry(tmp_path / "data", mixed=rows)
    by_tokens = token_filter("mixed", "--max-tokens", 30, "--dry-run")
    by_chars = run(
        "mixed", "--dataset-dir", tmp_path / "data", "--max-chars", 30, "--dry-run", "--json"
    ).output
    assert by_tokens["first_dropped"] == [2]
    assert json.loads(by_chars)[0]["first_dropped"] == [1]


def test_kept_jsonl_rows_are_the_same_bytes(tmp_path, filter_here):
    rows = [row("the plum " * (place % 5), text) for place, text in enumerate(NASTY * 3)]
    lines = [json.dumps(one, ensure_ascii=bool(place % 2)).encode() + b"\n" for place, one in enumerate(rows)]
    lines[2] = lines[2].replace(b": ", b" :  ")
    folder = make_registry(tmp_path / "data", rows={"file_name": "rows.jsonl", "metric": "yes_no"})
    (folder / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(lines).rstrip(b"\n"))
    found = filter_here("rows", "--max-chars", 30, "-o", tmp_path / "out")
    dropped = {json.loads(line)["row"] for line in (tmp_path / "out" / "rows_max30.dropped.jsonl").open()}
    assert 0 < found["kept"] < len(rows)
    assert found["dropped"] == len(dropped)
    kept = [line for number, line in enumerate(lines, 1) if number not in dropped]
    written = (tmp_path / "out" / "rows_max30.jsonl").read_bytes()
    assert written.removeprefix(b"\xef\xbb\xbf").rstrip(b"\n") == b"".join(kept).rstrip(b"\n")
    entry = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["rows_max30"]
    assert entry == {"file_name": "rows_max30.jsonl", "metric": "yes_no"}
    manifest = json.loads((tmp_path / "out" / "rows_max30.manifest.json").read_text())
    assert (manifest["rows"], manifest["kept"]) == (len(rows), found["kept"])
    assert manifest["dropped"] == {"total above 30": found["dropped"]}
    assert manifest["unit"] == "characters"


def test_kept_csv_rows_are_the_same_bytes_under_the_same_header(tmp_path, filter_here):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(["instruction", "in,put", "output"])
    records = [["the plum " * (place % 5), text, "Yes"] for place, text in enumerate(NASTY * 2)]
    writer.writerows(records)
    columns = {"prompt": "instruction", "query": "in,put", "response": "output"}
    folder = make_registry(tmp_path / "data", rows={"file_name": "rows.csv", "columns": columns})
    (folder / "rows.csv").write_bytes(stream.getvalue().encode())
    found = filter_here("rows", "--max-chars", 30, "-o", tmp_path / "out")
    dropped = {json.loads(line)["row"] for line in (tmp_path / "out" / "rows_max30.dropped.jsonl").open()}
    assert 0 < found["kept"] < len(records)
    kept = io.StringIO(newline="")
    writer = csv.writer(kept, lineterminator="\r\n")
    writer.writerow(["instruction", "in,put", "output"])
    writer.writerows(record for number, record in enumerate(records, 1) if number not in dropped)
    assert (tmp_path / "out" / "rows_max30.csv").read_bytes() == kept.getvalue().encode()


def test_a_json_array_stays_an_array_of_the_same_objects(tmp_path, filter_here):
    rows = [row("the plum " * (place % 5), text) for place, text in enumerate(NASTY)]
    folder = make_registry(tmp_path / "data", rows={"file_name": "rows.json"})
    (folder / "rows.json").write_text(json.dumps(rows, indent=3))
    found = filter_here("rows", "--max-chars", 30, "-o", tmp_path / "out")
    text = (tmp_path / "out" / "rows_max30.json").read_text()
    kept = json.loads(text)
    assert 0 < len(kept) < len(rows)
    assert len(kept) == found["kept"]
    assert all(json.dumps(one, indent=3).replace("\n", "\n   ") in text for one in kept)


def test_parquet_keeps_its_schema(tmp_path, filter_here):
    rows = [{**row("the plum " * (place % 5), text), "n": place} for place, text in enumerate(NASTY)]
    table = pyarrow.Table.from_pylist(rows)
    folder = make_registry(tmp_path / "data", rows={"file_name": "rows.parquet"})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=3)
    found = filter_here("rows", "--max-chars", 30, "-o", tmp_path / "out")
    written = parquet.read_table(tmp_path / "out" / "rows_max30.parquet")
    assert written.schema == table.schema
    dropped = set(found["first_dropped"])
    assert written.to_pylist() == [one for number, one in enumerate(rows, 1) if number not in dropped]


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        (["--max-tokens", 30], [2, 3]),
        (["--max-tokens", 43], [3]),  # the second row has 43
        (["--max-answer-tokens", 46], []),
        (["--min-tokens", 21], []),
        (["--min-tokens", 30], [1]),
        (["--max-tokens", 20, "--on", "prompt"], [2]),
        (["--max-answer-tokens", 20], [3]),
        (["--min-tokens", 5, "--on", "answer"], [1, 2]),
        (["--min-tokens", 30, "--max-tokens", 50], [1, 3]),
    ],
)
@pytest.mark.engine
def test_each_bound_looks_at_its_own_length(tmp_path, token_filter, options, dropped):
    rows = [row("a", "b"), row("x y z 1 2 3 4 5 6 7 8 9", "b"), row("a", "1234567890 " * 4)]
    make_registry(tmp_path / "data", rows=rows)
    assert token_filter("rows", *options, "--dry-run")["first_dropped"] == dropped


def test_several_files_of_a_set_become_one(tmp_path, filter_here):
    folder = make_registry(tmp_path / "data", rows={"file_name": "parts"})
    (folder / "parts").mkdir()
    (folder / "parts" / "a.jsonl").write_text(json.dumps(row("a")))
    (folder / "parts" / "b.jsonl").write_text(json.dumps(row("b")) + "\n" + json.dumps(row("c " * 50)))
    found = filter_here("rows", "--max-chars", 40, "-o", tmp_path / "out")
    assert (found["kept"], found["first_dropped"]) == (2, [3])
    lines = (tmp_path / "out" / "rows_max40.jsonl").read_text().splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == ["a", "b"]


@pytest.mark.engine
def test_a_report_lists_the_rows_that_would_go_and_nothing_else_is_written(tmp_path, token_filter):
    make_registry(tmp_path / "data", rows=[row("a"), row("b " * 50), row("c", None)])
    token_filter("rows", "--max-tokens", 40, "--dry-run", "--report", tmp_path / "gone.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "gone.jsonl").open()]
    assert [(line["row"], line["reason"]) for line in lines] == [
        (2, "total above 40"),
        (3, "left out by the engine: the answer is empty"),
    ]
    assert lines[0]["total"] == lines[0]["prompt"] + lines[0]["answer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "gone.jsonl"]


@pytest.mark.parametrize("rows", [[row("a " * 50)], [row("a"), row(5)]])
@pytest.mark.engine
def test_nothing_is_left_where_no_row_stays_or_one_is_bad(tmp_path, token_filter, rows):
    make_registry(tmp_path / "data", rows=rows)
    with pytest.raises(TunebookError):
        token_filter("rows", "--max-tokens", 40, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_replaced(tmp_path, filter_here):
    make_registry(tmp_path / "data", rows=[row("a"), row("b " * 50)])
    filter_here("rows", "--max-chars", 40, "-o", tmp_path / "data")
    registry = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    assert list(registry) == ["rows", "rows_max40"]
    with pytest.raises(TunebookError, match="already has"):
        filter_here("rows", "--max-chars", 40, "-o", tmp_path / "data")


def test_num_samples_stays_only_where_so_many_rows_do(tmp_path, filter_here):
    folder = make_registry(tmp_path / "data", rows=[row("a"), row("b"), row("c " * 50)])
    for samples, expected in ((2, 2), (3, None)):
        (folder / "dataset_info.json").write_text(
            json.dumps({"rows": {"file_name": "rows.json", "num_samples": samples}})
        )
        filter_here("rows", "--max-chars", 40, "-o", tmp_path / f"out{samples}")
        entry = json.loads((tmp_path / f"out{samples}" / "dataset_info.json").read_text())["rows_max40"]
        assert entry.get("num_samples") == expected


def test_a_filter_that_is_killed_leaves_nothing_that_looks_finished(tmp_path):
    folder = make_registry(tmp_path / "data", rows={"file_name": "rows.jsonl"})
    rows = "".join(
        json.dumps(row(f"the plum {place} " * (place % 9), "Yes")) + "\n" for place in range(20_000)
    )
    (folder / "rows.jsonl").write_text(rows)
    command = [
        sys.executable,
        "-c",
        "from tunebook.cli.data_filter import filter_rows; filter_rows()",
        "rows",
    ]
    command += [
        "--dataset-dir",
        folder,
        "--max-chars",
        "60",
    ]
    seen = set()
    for attempt in range(5):
        out = tmp_path / f"out{attempt}"
        process = subprocess.Popen([*command, "-o", out], stdout=subprocess.DEVNULL)
        # Until it has begun to write, and then for a different while each time.
        while process.poll() is None and not out.exists():
            time.sleep(0.005)
        time.sleep(0.1 * attempt)
        process.kill()
        process.wait()
        whole = (out / "dataset_info.json").is_file()
        seen.add(whole)
        if whole:
            manifest = json.loads((out / "rows_max60.manifest.json").read_text())
            assert sha256_of(out / "rows_max60.jsonl") == manifest["sha256"]
        elif (out / "rows_max60.jsonl").exists():
            assert (out / "rows_max60.jsonl").read_bytes().endswith(b"\n")
    assert False in seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run"], "give a bound"),
        (["--max-tokens", 5], "either -o FOLDER or --dry-run"),
        (["--max-tokens", 5, "--max-chars", 5, "--dry-run"], "either tokens or characters"),
        (["--max-tokens", 5, "-o", "x", "--report", "y"], "--report goes with --dry-run"),
    ],
)
def test_options_that_do_not_fit_are_wrong_use(tmp_path, options, message):
    result = run("rows", *options)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.engine
def test_rows_of_several_files_go_by_the_engine_s_own_numbers(tmp_path, token_filter):
    folder = make_registry(tmp_path / "data", rows={"file_name": "parts"})
    (folder / "parts").mkdir()
    for name in "dbeac":
        lines = [
            row(f"{name} {number} " + "plum " * (50 * (name == "e" and number == 1))) for number in range(3)
        ]
        (folder / "parts" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = token_filter("rows", "--max-tokens", 60, "-o", tmp_path / "out")
    assert found["dropped"] == 1
    kept = [json.loads(line)["instruction"] for line in (tmp_path / "out" / "rows_max60.jsonl").open()]
    assert sorted(kept) == sorted(
        f"{name} {number} " for name in "abcde" for number in range(3) if (name, number) != ("e", 1)
    )
