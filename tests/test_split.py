"""Splits as a user sees them: what goes in comes out, once, unchanged."""

import csv
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from split_cases import COLUMNS, ROWS, csv_text, job, parts, read, read_csv, read_json, split_file
from tunebook.errors import TunebookError
from tunebook.splits.csv_rows import find_records, parse_records
from tunebook.splits.job_array import merge, run_task
from tunebook.splits.manifest import joint_dataset_dir
from tunebook.splits.run import preview, split


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def in_temporary_folder(test):
    """Hypothesis calls a test many times; each time it gets a folder of its own."""
    memory = Path("/dev/shm")  # where a sync costs nothing
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        test(folder)
    finally:
        shutil.rmtree(folder)


def write_csv(folder: Path, rows, name="data.csv", **style) -> Path:
    path = folder / name
    path.write_bytes(csv_text(rows, **style).encode())
    return path


def dictionaries(rows):
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def assert_each_row_once(expected: list[dict], out: Path, manifest: dict) -> None:
    """Each row is in one part, and no part has two rows more than another."""
    found = [read(path) for path in parts(out, manifest)]
    held = read(out / manifest["eval"]["file"]) if manifest["eval"] else []
    key = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
    assert sorted(map(key, [row for part in found for row in part] + held)) == sorted(map(key, expected))
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == [part["rows"] for part in manifest["nodes"]]


@settings(max_examples=60)
@given(
    rows=ROWS,
    newline=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    bom=st.booleans(),
    last_newline=st.booleans(),
    nodes=st.integers(1, 5),
    shuffle=st.booleans(),
    balance=st.sampled_from(["rows", "bytes"]),
    held=st.integers(0, 3),
)
def test_each_csv_row_goes_to_one_node_unchanged(
    rows, newline, quoting, bom, last_newline, nodes, shuffle, balance, held
):
    held = min(held, len(rows) - 1)
    nodes = min(nodes, len(rows) - held)
    if held:  # equal prompts are held out together
        rows = [
            (f"{number}{prompt}", question, answer) for number, (prompt, question, answer) in enumerate(rows)
        ]
    text = csv_text(rows, newline=newline, quoting=quoting)
    if not last_newline:
        text = text.removesuffix(newline)
    expected = list(csv.DictReader(io.StringIO(text, newline="")))

    def test(folder):
        source = folder / "data.csv"
        source.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
        manifest = split_file(
            source, folder / "out", nodes=nodes, shuffle=shuffle, balance=balance, eval_rows=held
        )
        assert_each_row_once(expected, folder / "out", manifest)
        for path in parts(folder / "out", manifest):
            assert path.read_bytes().startswith(b"\xef\xbb\xbf") == bom

    in_temporary_folder(test)


@settings(max_examples=60)
@given(
    rows=ROWS,
    style=st.sampled_from(["jsonl", "array", "indented array"]),
    ascii_only=st.booleans(),
    last_newline=st.booleans(),
    blank_lines=st.booleans(),
    bom=st.booleans(),
    nodes=st.integers(1, 5),
    shuffle=st.booleans(),
)
def test_each_json_row_goes_to_one_node_unchanged(
    rows, style, ascii_only, last_newline, blank_lines, bom, nodes, shuffle
):
    expected = [{**row, "list": [{"a": "]}"}, []]} for row in dictionaries(rows)]
    if style == "jsonl":
        between = "\n\n" if blank_lines else "\n"
        text = between.join(json.dumps(row, ensure_ascii=ascii_only) for row in expected)
        text += "\n" if last_newline else ""
    else:
        text = json.dumps(expected, ensure_ascii=ascii_only, indent=2 if style != "array" else None)

    def test(folder):
        source = folder / ("data.jsonl" if style == "jsonl" else "data.json")
        source.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
        manifest = split_file(source, folder / "out", nodes=min(nodes, len(rows)), shuffle=shuffle)
        assert_each_row_once(expected, folder / "out", manifest)

    in_temporary_folder(test)


@settings(max_examples=80)
@given(
    text=st.lists(st.sampled_from(['"', ",", "\n", "\r", "\r\n", "a", " ", '""']), max_size=30).map("".join)
)
def test_any_csv_at_all_is_read_as_the_csv_module_reads_it(text):
    text = f"a,b\n{text}"
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]

    def test(folder):
        source = folder / "data.csv"
        source.write_bytes(text.encode())
        closed = all(record is not None for record in parse_records(source, 4))
        if not closed:
            with pytest.raises(TunebookError, match=r"never closed|a row of \d field"):
                split_file(source, folder / "out", nodes=1, shuffle=False)
        elif any(len(row) != 2 for row in rows):
            with pytest.raises(TunebookError, match=r"line \d+: a row of \d fields? under a header of 2"):
                split_file(source, folder / "out", nodes=1, shuffle=False)
        elif not rows:
            with pytest.raises(TunebookError, match="holds no rows"):
                split_file(source, folder / "out", nodes=1, shuffle=False)
        else:
            manifest = split_file(source, folder / "out", nodes=1, shuffle=False)
            assert [list(row.values()) for row in read_csv(parts(folder / "out", manifest)[0])] == rows
        assert not list(folder.glob(".out*"))

    in_temporary_folder(test)


@given(rows=ROWS, newline=st.sampled_from(["\n", "\r\n"]), cut=st.integers(0, 40), stray=st.booleans())
def test_both_ways_to_look_outside_quotes_find_the_same(rows, newline, cut, stray):
    text = csv_text(rows, newline=newline).encode()
    buffer = np.frombuffer((b'x"y,' if stray else b"") + text[: len(text) - cut], np.uint8)
    with pytest.MonkeyPatch.context() as patched:
        found = []
        for fraction in (0, 10**9):
            patched.setattr("tunebook.splits.csv_rows._GATHER_BELOW", fraction)
            found.append([str(value) for value in find_records(buffer, at_end=cut % 2 == 0)])
    assert found[0] == found[1]


def test_one_part_in_the_order_of_the_source_is_the_source(folder):
    source = write_csv(folder, [("a", '"q"\n', "é"), ("b", ",", "")], newline="\r\n")
    for ending in (b"\r\n", b""):
        source.write_bytes(source.read_bytes().removesuffix(b"\r\n") + ending)
        out = folder / f"out{len(ending)}"
        manifest = split_file(source, out, nodes=1, shuffle=False)
        assert parts(out, manifest)[0].read_bytes() == source.read_bytes()


def test_rows_keep_the_order_of_the_source_without_shuffling(folder):
    source = write_csv(folder, [(str(number), "q", "r") for number in range(11)])
    manifest = split_file(source, folder / "out", nodes=3, shuffle=False)
    found = [[int(row["prompt"]) for row in read_csv(path)] for path in parts(folder / "out", manifest)]
    assert found == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]


def test_a_shuffled_split_never_changes(folder):
    # Users make a split again months later, on another machine: this is a promise, not a snapshot.
    source = write_csv(folder, [(str(number), "q", "r") for number in range(12)])
    manifest = split_file(source, folder / "out", nodes=3, eval_rows=2, seed=5)
    found = [[int(row["prompt"]) for row in read_csv(path)] for path in parts(folder / "out", manifest)]
    held = [int(row["prompt"]) for row in read_csv(folder / "out" / manifest["eval"]["file"])]
    assert (found, held) == ([[9, 11, 0, 4], [5, 7, 2], [3, 10, 1]], [6, 8])


def test_memory_and_buckets_do_not_change_a_shuffled_split(folder, monkeypatch):
    source = write_csv(folder, [(str(number), "q" * (number % 50), "r") for number in range(500)])
    one = split_file(source, folder / "one", nodes=3)
    monkeypatch.setattr("tunebook.splits.shuffle._BYTES_PER_ROW", 10_000_000)
    many = split_file(source, folder / "many", nodes=3)
    assert [part["xxh3_128"] for part in one["nodes"]] == [part["xxh3_128"] for part in many["nodes"]]


def test_another_seed_gives_another_split(folder):
    source = write_csv(folder, [(str(number), "q", "r") for number in range(50)])
    hashes = {
        split_file(source, folder / f"out{seed}", seed=seed)["nodes"][0]["xxh3_128"] for seed in range(5)
    }
    assert len(hashes) == 5


def test_the_hold_out_is_the_same_whatever_the_nodes_and_the_order(folder):
    source = write_csv(folder, [(str(number), "q", "r") for number in range(300)])
    held = set()
    for number, options in enumerate(
        ({"nodes": 2}, {"nodes": 7}, {"shuffle": False}, {"balance": "bytes", "nodes": 3})
    ):
        out = folder / str(number)
        manifest = split_file(source, out, eval_rows=20, **options)
        held.add(frozenset(row["prompt"] for row in read_csv(out / manifest["eval"]["file"])))
        for node in range(options.get("nodes", 2)):
            assert (out / f"node_{node}" / "data_eval.csv").read_bytes() == (
                out / manifest["eval"]["file"]
            ).read_bytes()
    assert len(held) == 1


def holdout(source, out, **options):
    manifest = split_file(source, out, nodes=2, **options)
    held = {line for line in (out / manifest["eval"]["file"]).read_text().splitlines() if line}
    trained = {line for path in parts(out, manifest) for line in path.read_text().splitlines() if line}
    return held, trained


@pytest.mark.parametrize(
    "row",
    [
        lambda number: {"question": f"What is {number}?", "answer": str(number)},
        lambda number: {
            "messages": [
                {"role": "user", "content": f"What is {number}?"},
                {"role": "assistant", "content": "x"},
            ]
        },
        lambda number: {"anything": f"{number}"},
    ],
)
def test_the_hold_out_is_chosen_by_what_is_asked(folder, row):
    lines = [json.dumps(row(number)) for number in range(2000)]
    orders = {
        "first": lines,
        "turned": lines[::-1],
        "more": [json.dumps(row(number)) for number in range(3000, 3100)] + lines,
    }
    for name, order in orders.items():
        (folder / f"{name}.jsonl").write_text("\n".join(order) + "\n")
    counted = [
        holdout(folder / f"{name}.jsonl", folder / f"n_{name}", eval_rows=100)[0]
        for name in ("first", "turned")
    ]
    assert counted[0] == counted[1]
    assert len(counted[0]) == 100
    shares = [holdout(folder / f"{name}.jsonl", folder / f"s_{name}", eval_share=0.1) for name in orders]
    assert shares[0][0] == shares[1][0]
    assert 150 < len(shares[0][0]) < 250
    # Rows that come later change nothing of what was held out.
    assert shares[0][0] <= shares[2][0]
    assert not shares[2][1] & shares[0][0]


def test_no_prompt_is_on_both_sides(folder):
    rows = [
        {
            "question": f"What  is {number % 300}?" if number % 2 else f"what is {number % 300}?",
            "answer": str(number),
        }
        for number in range(900)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held, trained = holdout(folder / "data.jsonl", folder / "out", eval_rows=90)
    asked = [
        {" ".join(json.loads(line)["question"].lower().split()) for line in lines}
        for lines in (held, trained)
    ]
    assert len(held) == 90
    assert not asked[0] & asked[1]


def test_bytes_are_balanced_with_equal_row_counts(folder):
    rows = [
        ("p", "q" * (1 + number * 7919 % 400), "r" * (20_000 if number % 500 == 0 else 1))
        for number in range(4000)
    ]
    source = write_csv(folder, rows)
    manifest = split_file(source, folder / "out", nodes=8, balance="bytes", shuffle=False)
    assert manifest["spread"]["bytes"] < 0.005
    assert {part["rows"] for part in manifest["nodes"]} == {500}
    assert split_file(source, folder / "by rows", nodes=8, shuffle=False)["spread"]["bytes"] > 0.05


def test_tokens_are_balanced_by_the_counter_that_is_given(folder):
    rows = [{"prompt": "a b " * (number % 13), "response": "word"} for number in range(900)]
    source = folder / "data.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    count = lambda texts: [len(text.split()) for text in texts]  # noqa: E731
    manifest = split_file(source, folder / "out", nodes=4, balance="tokens", count=count, tokenizer="words")
    assert manifest["spread"]["tokens"] < 0.005
    assert sum(part["tokens"] for part in manifest["nodes"]) == sum(
        2 * (number % 13) + 1 for number in range(900)
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_groups_stay_on_one_node_and_out_of_the_hold_out(folder, suffix):
    rows = [(f"user {number * 31 % 40}", f"q{number}", "r,\n") for number in range(400)]
    source = folder / f"data{suffix}"
    if suffix == ".csv":
        write_csv(folder, rows)
    elif suffix == ".jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in dictionaries(rows)))
    else:
        source.write_text(json.dumps(dictionaries(rows)))
    manifest = split_file(source, folder / "out", nodes=3, group_by="prompt", eval_rows=35)
    paths = [*parts(folder / "out", manifest), folder / "out" / manifest["eval"]["file"]]
    users = [{row["prompt"] for row in read(path)} for path in paths]
    assert sum(map(len, users)) == len(set.union(*users)) == 40
    assert sum(len(read(path)) for path in paths) == 400
    assert manifest["eval"]["rows"] == 30
    assert manifest["spread"]["rows"] < 0.1


def test_a_preview_writes_nothing(folder):
    source = write_csv(folder, [("a", "b", "c")] * 10)
    _, plans = preview(job(source, folder / "out", nodes=3))
    assert sorted(plan.rows for plan in plans) == [3, 3, 4]
    assert [path.name for path in folder.iterdir()] == ["data.csv"]


def test_a_split_that_is_there_already_is_kept(folder):
    source = write_csv(folder, [("a", "b", "c")] * 10)
    first = split_file(source, folder / "out")
    stamp = (folder / "out" / "manifest.json").stat().st_mtime_ns
    assert split_file(source, folder / "out") == first
    assert (folder / "out" / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(TunebookError, match="is there already"):
        split_file(source, folder / "out", seed=1)
    source.write_text(source.read_text() + "d,e,f\n")
    with pytest.raises(TunebookError, match="is there already"):
        split_file(source, folder / "out")


def test_an_empty_folder_is_taken(folder):
    (folder / "out").mkdir()
    split_file(write_csv(folder, [("a", "b", "c")] * 4), folder / "out")
    assert (folder / "out" / "manifest.json").is_file()


def test_per_node_names_are_those_that_scripts_expect(folder):
    source = write_csv(folder, [("a", "b", "c")] * 5, name="my.csv")
    split_file(source, folder / "data", nodes=4, names={"node_names": True})
    names = sorted(path.name for path in (folder / "data").glob("*.csv"))
    assert names == [f"training_data_node_{node}.csv" for node in range(4)]
    info = json.loads((folder / "data" / "node_2" / "dataset_info.json").read_text())
    assert info["my"]["file_name"] == "training_data_node_2.csv"
    assert info["my"]["columns"] == {"system": "prompt", "prompt": "question", "response": "response"}
    assert len(read_csv(folder / "data" / "node_2" / "training_data_node_2.csv")) in (1, 2)


def test_a_registry_entry_keeps_its_name_and_the_others_still_work(folder):
    registry = folder / "info"
    (registry / "sub").mkdir(parents=True)
    rows = dictionaries([("a", f"b{number}", str(number)) for number in range(9)])
    (registry / "sub" / "train.json").write_text(json.dumps(rows))
    (registry / "eval.json").write_text(json.dumps(rows[:1]))
    entry = {
        "file_name": "sub/train.json",
        "columns": {"prompt": "question", "response": "response"},
        "metric": "gsm8k",
    }
    others = {"held": {"file_name": "eval.json", "metric": "gsm8k"}, "hub": {"hf_hub_url": "a/b"}}
    (registry / "dataset_info.json").write_text(json.dumps({"train": entry, **others}))
    out = folder / "out"
    manifest = split_file("train", out, dataset_dir=registry, eval_rows=2)
    for node in range(2):
        info = json.loads((out / f"node_{node}" / "dataset_info.json").read_text())
        assert info["train"] == entry
        assert info["train_eval"] == {**entry, "file_name": "sub/train_eval.json"}
        assert len(read_json(out / f"node_{node}" / "sub" / "train_eval.json")) == 2
        assert info["held"] == {"file_name": str(registry / "eval.json"), "metric": "gsm8k"}
        assert info["hub"] == others["hub"]
    assert_each_row_once(rows, out, manifest)
    with pytest.raises(TunebookError, match="has an entry 'held' already"):
        split_file("train", folder / "two", dataset_dir=registry, eval_rows=2, names={"eval_name": "held"})
    names = {"eval_name": "other", "eval_metric": "yes_no"}
    split_file("train", folder / "two", dataset_dir=registry, eval_rows=2, names=names)
    info = json.loads((folder / "two" / "node_1" / "dataset_info.json").read_text())
    assert (info["train"]["metric"], info["other"]["metric"]) == ("gsm8k", "yes_no")


def test_several_files_of_an_entry_become_one_file_a_node(folder):
    registry = folder / "info"
    (registry / "many").mkdir(parents=True)
    (registry / "many" / "a.jsonl").write_text('{"n": 1}\n{"n": 2}')
    (registry / "many" / "b.jsonl").write_text('{"n": 3}\n')
    (registry / "dataset_info.json").write_text(json.dumps({"many": {"file_name": "many"}}))
    manifest = split_file("many", folder / "out", dataset_dir=registry, nodes=1, shuffle=False)
    assert manifest["nodes"][0]["file"] == "node_0/many.jsonl"
    assert (folder / "out" / "node_0" / "many.jsonl").read_text() == '{"n": 1}\n{"n": 2}\n{"n": 3}\n'


def test_a_joint_job_gets_every_row_but_the_hold_out(folder):
    source = write_csv(folder, [(str(number), "q", "r") for number in range(20)])
    split_file(source, folder / "plain")
    info = json.loads((joint_dataset_dir(folder / "plain") / "dataset_info.json").read_text())
    assert info["data"]["file_name"] == str(source)

    split_file(source, folder / "held", eval_rows=5)
    with pytest.raises(TunebookError, match="one joint job") as caught:
        joint_dataset_dir(folder / "held")
    assert "--joint" in caught.value.fix

    manifest = split_file(source, folder / "joint", eval_rows=5, names={"joint": True})
    together = joint_dataset_dir(folder / "joint")
    info = json.loads((together / "dataset_info.json").read_text())
    whole = read_csv(together / info["data"]["file_name"])
    held = read_csv(together / info["data_eval"]["file_name"])
    assert len(held) == 5
    assert sorted(int(row["prompt"]) for row in whole + held) == list(range(20))
    assert manifest["joint"]["file"] == "joint/data.csv"

    source.write_text("prompt\nchanged\n")
    with pytest.raises(TunebookError, match="has changed"):
        joint_dataset_dir(folder / "plain")


def test_parquet_is_split_by_rows_with_its_schema(folder):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "user": [number % 7 for number in range(200)],
            "text": [None if number == 3 else f'NA "{number}"\n' * (number % 9) for number in range(200)],
            "messages": [[{"role": "user", "content": str(number)}] for number in range(200)],
        }
    )
    pq.write_table(table, folder / "data.parquet", row_group_size=64, compression="zstd")
    for number, options in enumerate(
        (
            {"shuffle": False},
            {"shuffle": True, "eval_rows": 10},
            {"balance": "bytes", "nodes": 3},
            {"group_by": "user"},
        )
    ):
        out = folder / str(number)
        manifest = split_file(folder / "data.parquet", out, names={"joint": True}, **options)
        files = [*parts(out, manifest), *([out / manifest["eval"]["file"]] if manifest["eval"] else [])]
        tables = [pq.read_table(path) for path in files]
        assert all(found.schema == table.schema for found in tables)
        key = lambda row: row["messages"][0]["content"]  # noqa: E731
        found = sorted((row for one in tables for row in one.to_pylist()), key=key)
        assert found == sorted(table.to_pylist(), key=key)
        joint = pq.read_table(out / "joint" / "data.parquet")
        assert joint.num_rows == sum(part["rows"] for part in manifest["nodes"])
        assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    users = [set(one["user"].to_pylist()) for one in tables]
    assert not users[0] & users[1]


def test_parquet_with_views_of_texts_is_split(folder):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {"prompt": pa.array([f"q{n}" for n in range(9)]).cast(pa.string_view()), "n": list(range(9))}
    )
    pq.write_table(table, folder / "data.parquet")
    for number, options in enumerate(({"shuffle": False}, {"shuffle": True, "eval_rows": 2})):
        out = folder / str(number)
        manifest = split_file(folder / "data.parquet", out, nodes=2, **options)
        files = [*parts(out, manifest), *([out / manifest["eval"]["file"]] if manifest["eval"] else [])]
        found = [row for path in files for row in pq.read_table(path).to_pylist()]
        assert sorted(found, key=lambda row: row["n"]) == table.to_pylist()


def test_the_split_of_a_resumed_job_is_the_same(folder):
    source = write_csv(folder, [(str(number), "q", "r") for number in range(50)])
    assert split(job(source, folder / "one"))["nodes"] == split(job(source, folder / "two"))["nodes"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@settings(max_examples=25)
@given(
    rows=ROWS,
    tasks=st.integers(1, 9),
    nodes=st.integers(1, 3),
    balance=st.sampled_from(["rows", "bytes"]),
    held=st.integers(0, 2),
    order=st.randoms(use_true_random=False),
)
def test_a_job_array_makes_the_split_of_one_process(suffix, rows, tasks, nodes, balance, held, order):
    rows = (
        [(f"{number}{prompt}", *rest) for number, (prompt, *rest) in enumerate(rows * 5)]
        if held
        else rows * 5
    )
    options = {"nodes": nodes, "eval_rows": held, "balance": balance, "shuffle": False}

    def test(folder):
        source = folder / f"data{suffix}"
        if suffix == ".csv":
            write_csv(folder, rows)
        else:
            source.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in dictionaries(rows))
            )
        names = {"joint": True}
        one = split_file(source, folder / "one", names=names, **options)
        numbers = list(range(tasks))
        order.shuffle(numbers)
        for number in numbers:
            with pytest.raises(TunebookError, match="have not finished"):
                merge(job(source, folder / "array", names=names, **options), tasks)
            run_task(job(source, folder / "array", names=names, **options), number, tasks)
        assert merge(job(source, folder / "array", names=names, **options), tasks) == one
        left, right = (tree(folder / name) for name in ("one", "array"))
        assert left == right

    in_temporary_folder(test)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
