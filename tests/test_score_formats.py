"""Files of predictions as harnesses and servers leave them."""

import json

import pytest
from click.testing import CliRunner

from tunebook.cli.score import score
from tunebook.errors import TunebookError

ANSWERS = [("The answer is 18.", "18"), ("#### 20", "21"), ("7", "7")]


def run(*arguments):
    done = CliRunner().invoke(score, ["gsm8k", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def whole(path, value):
    path.write_text(json.dumps(value))
    return path


def harness(answer, reference, **more):
    said = {"resps": [[answer]], "filtered_resps": ["unused"], "target": reference}
    return {"doc_id": 0, "doc": {"question": "?", "answer": reference}, **said, **more}


FORMS = {
    "samples_gsm8k.jsonl": lambda path: lines(path, [harness(*pair) for pair in ANSWERS]),
    "opencompass.json": lambda path: whole(
        path, {str(n): {"prediction": a, "gold": r} for n, (a, r) in enumerate(ANSWERS)}
    ),
    "inspect.json": lambda path: whole(
        path, {"eval": {}, "samples": [{"output": {"completion": a}, "target": r} for a, r in ANSWERS]}
    ),
    "chat.jsonl": lambda path: lines(
        path,
        [
            {"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": a}], "answer": r}
            for a, r in ANSWERS
        ],
    ),
    "lists.jsonl": lambda path: lines(path, [{"prediction": [a], "target": [r]} for a, r in ANSWERS]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_another_tool_is_read_as_it_is(tmp_path, name):
    summary, _ = run(FORMS[name](tmp_path / name))
    assert summary["n"] == 3
    assert summary["figures"]["exact_match"]["value"] == pytest.approx(2 / 3)


def test_a_dot_leads_into_an_object(tmp_path):
    rows = [{"gsm8k_data": {"answer": f"#### {r}"}, "output_str": a} for a, r in ANSWERS]
    file = lines(tmp_path / "p.jsonl", rows)
    summary, _ = run(file, "--prediction-column", "output_str", "--reference-column", "gsm8k_data.answer")
    assert summary["figures"]["exact_match"]["value"] == pytest.approx(2 / 3)


def test_an_answer_that_the_harness_wrote_once_a_filter_counts_once(tmp_path):
    rows = [harness(a, r, filter=f) for a, r in ANSWERS for f in ("strict-match", "flexible-extract")]
    summary, _ = run(lines(tmp_path / "samples.jsonl", rows))
    assert summary["n"] == 3


def test_references_may_lie_in_another_file(tmp_path):
    answers = lines(tmp_path / "a.jsonl", [{"id": n, "text": a} for n, (a, _) in enumerate(ANSWERS)])
    labels = lines(
        tmp_path / "l.jsonl", [{"id": n, "label": r} for n, (_, r) in enumerate(reversed(ANSWERS))]
    )
    labels.write_text("".join(json.dumps({"id": n, "label": r}) + "\n" for n, (_, r) in enumerate(ANSWERS)))
    options = ("--prediction-column", "text", "--references", labels, "--join", "id")
    summary, _ = run(answers, *options)
    assert summary["figures"]["exact_match"]["value"] == pytest.approx(2 / 3)
    labels.write_text('{"id": 0, "label": "18"}\n')
    with pytest.raises(TunebookError, match="row 2"):
        run(answers, *options)
    summary, said = run(answers, *options, "--skip-unlabelled")
    assert summary["n"] == 1
    assert "2 rows without a reference are left out" in said
    labels.write_text('{"id": 0, "label": "18"}\n{"id": 0, "label": "19"}\n')
    with pytest.raises(TunebookError, match="two different references"):
        run(answers, *options)
    with pytest.raises(TunebookError, match="go together"):
        run(answers, "--join", "id")


def test_rows_without_a_reference_are_counted_where_that_is_asked_for(tmp_path):
    file = lines(tmp_path / "p.jsonl", [{"predict": "7", "label": "7"}, {"predict": "8", "label": ""}])
    with pytest.raises(TunebookError, match="row 2 cannot be scored"):
        run(file)
    summary, said = run(file, "--skip-unlabelled")
    assert summary["n"] == 1
    assert "1 rows without a reference" in said


def test_a_list_of_several_answers_is_no_text(tmp_path):
    file = lines(tmp_path / "p.jsonl", [{"predict": ["7", "8"], "label": "7"}])
    with pytest.raises(TunebookError, match="no text"):
        run(file)
