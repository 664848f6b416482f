"""The metric `classification`: labels of any kind are read, or it is said that none was."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tunebook import metrics
from tunebook.cli.compare import compare
from tunebook.cli.score import score
from tunebook.data.registry import load_registry
from tunebook.errors import TunebookError
from tunebook.metrics.classification import configured
from tunebook.types import MetricSpec

CASES = {
    ("spam", "ham"): [
        ("spam", "spam"), ("**ham**", "ham"), ("ＳＰＡＭ", "spam"), ("Label: spam", "spam"), ("label=spam", "spam"),
        ("The message is spam because it sells.", "spam"), ("It is not spam.", None), ("This isn't spam, it's ham.", "ham"),
        ("spam or ham", None), ("spam/ham", None), ("Either spam or ham", None), ("I think it is ham, not spam", "ham"),
        ('{"label": "spam"}', "spam"), ('```json\n{"category": "ham", "confidence": 0.9}\n```', "ham"),
        ("<think>spam?</think>\nham", "ham"), ("It mentions spam and ham. Final answer: spam", "spam"),
        ("I cannot tell.", None), ("", None), ("spam\n\nExplanation: ham messages are short.", "spam"), ("spammer", None),
        ("hamster", None), ("It could be spam, it depends.", None), ("The answer is spam. However, it cannot be determined.", None),
        ("Unlike ham, this is spam", "spam"), ("classified as ham", "ham"), ("spam (95%)", "spam"), ("Spam: 0.9, Ham: 0.1", None),
        ("Antwort: spam", "spam"), ("Die Nachricht ist kein Spam.", None), ("Réponse : spam", "spam"), ("Ответ: spam", "spam"),
        ("这是spam。", "spam"), ("这条不是spam，是ham。", "ham"), ("分类结果是ham", "ham"), ("답: ham", "ham"), ("الإجابة: spam", "spam"),
    ],
    ("not spam", "spam"): [
        ("not spam", "not spam"), ("It is not spam.", "not spam"), ("spam", "spam"), ("Not-spam", "not spam"), ("not_spam", "not spam"),
    ],
    ("positive", "non-positive", "neutral"): [
        ("non-positive", "non-positive"), ("The sentiment is neutral.", "neutral"), ("positive, neutral", None),
    ],
    ("积极", "消极", "中性"): [
        ("积极", "积极"), ("情感：消极", "消极"), ("这段话是积极的。", "积极"), ("不是积极，是消极。", "消极"), ("情感倾向：【消极】", "消极"),
        ("积极或消极", None), ("无法判断", None), ("积极\n理由：没有消极词", "积极"),
    ],
    ("1", "0"): [("1", "1"), ("Label: 1", "1"), ("The answer is 0.", "0"), ("10", None), ("0.5", None), ("class 1", "1"), ("[1]", "1")],
    ("-1", "0", "1"): [("-1", "-1"), ("1", "1"), ("label: -1", "-1"), ("The answer is 1", "1")],
    ("billing issue", "technical", "account_access"): [
        ("Billing Issue", "billing issue"), ("billing_issue", "billing issue"), ("Category: account access", "account_access"),
        ("The ticket is about billing, hence technical", "technical"),
    ],
    ("إيجابي", "سلبي"): [("التصنيف: سلبي", "سلبي"), ("سلبي.", "سلبي"), ("ليس سلبي", None)],
    ("World", "Sports", "Business", "Sci/Tech"): [("The topic is Sci/Tech.", "Sci/Tech"), ("World, Sports", None)],
    ("ポジティブ", "ネガティブ"): [("ネガティブです。", "ネガティブ"), ("ポジティブではなくネガティブ", "ネガティブ")],
    ("긍정", "부정"): [("부정입니다.", "부정"), ("긍정이 아니라 부정", "부정")],
    ("contradiction", "entailment", "neutral"): [
        ("There is no contradiction here, so it is entailment.", "entailment"),
        ("neither contradiction nor entailment, so neutral", "neutral"),
    ],
    ("très positif", "positif", "négatif"): [("très positif", "très positif"), ("NÉGATIF", "négatif"), ("Ce n'est pas négatif", None)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "said", "wanted"), [(labels, *case) for labels, cases in CASES.items() for case in cases]
)
def test_an_answer_is_read_as_its_label_or_as_none(labels, said, wanted):
    found = configured({"labels": list(labels)}).score(said, labels[0])
    assert (found.parsed, found.reason is None) == (wanted, wanted is not None), found


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6, unique=True))
def test_a_label_is_itself(labels):
    try:
        metric = configured({"labels": labels})
    except ValueError:
        return
    for label in labels:
        try:
            assert metric.score(label, label).values["accuracy"] == 1.0
        except ValueError:
            continue  # nothing of it can be seen


def test_the_figures_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = ["a1", "b2", "c3"]
    metric = configured({"labels": labels, "positive": "b2"})
    truth = [labels[n * n % 3] for n in range(60)]
    said = [labels[n * 7 % 5 % 3] if n % 11 else "nothing" for n in range(60)]
    found = metric.aggregate([metric.score(*pair) for pair in zip(said, truth, strict=True)])
    occurring = sorted({*truth, *said} - {"nothing"})
    for average, prefix in (("macro", "macro_"), ("weighted", "weighted_")):
        precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
            truth, said, labels=occurring, average=average, zero_division=0
        )
        assert found[f"{prefix}f1"] == pytest.approx(f1)
        if average == "macro":
            assert (found["macro_precision"], found["macro_recall"]) == pytest.approx((precision, recall))
    own = sklearn.f1_score(truth, said, labels=labels, average=None, zero_division=0)
    assert [found[f"f1_{label}"] for label in occurring] == pytest.approx(
        [value for label, value in zip(labels, own, strict=True) if label in occurring]
    )
    assert found["f1"] == found["f1_b2"]
    assert found["unparsed_rate"] == said.count("nothing") / 60
    assert set(found) <= set(metric.names)


def test_two_classes_are_ranked_by_their_margin():
    metric = configured({"labels": ["ham", "spam"], "positive": "spam"})
    assert list(metric.classes) == ["spam", "ham"]
    scores = []
    for reference, margin in (("spam", 2.0), ("ham", -1.0), ("spam", 0.5), ("ham", 1.0)):
        one = metric.score(reference, reference)
        scores.append(type(one)(**{**{f: getattr(one, f) for f in ("parsed", "reference", "rule", "reason")},
                                   "values": {**one.values, "margin": margin, "class_mass": 0.9}}))  # fmt: skip
    assert metric.aggregate(scores)["auroc"] == 0.75


def test_labels_come_from_the_references_or_they_are_no_classes():
    asked = [(metrics.load("classification"), MetricSpec(name="classification"))]
    ((metric, spec),) = metrics.fitted(asked, ["b", "a", " a ", "b"], "set")
    assert spec.name == metric.name == 'classification{"labels": ["a", "b"]}'
    assert metrics.load(metric.name).score("b", "a").values["accuracy"] == 0.0
    for references, problem in (
        ([str(n) for n in range(51)], "51 different texts"),
        (["a"] * 9, "all references are 'a'"),
        (["a", "  "], "the reference is blank"),
    ):
        with pytest.raises(TunebookError, match=problem):
            metrics.fitted(asked, references, "set")
    assert asked[0][0].score("a", "a").reason == "labels_unknown"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"labels": ["a"]}, "2 to 50 different"),
        ({"labels": ["a", "A."]}, "2 to 50 different"),
        ({"labels": ["a", ""]}, "2 to 50 different"),
        ({"labels": "a,b"}, "not a list of texts"),
        ({"labels": [["a"], "b"]}, "not a list of texts"),
        ({"labels": ["a", "b"], "positive": "c"}, "none of the labels"),
        ({"lables": ["a", "b"]}, "is no option"),
    ],
)
def test_wrong_options_are_refused(options, problem):
    with pytest.raises(TunebookError, match=problem):
        metrics.load(f"classification{json.dumps(options)}")


def test_a_registry_entry_gives_the_options(tmp_path):
    asked = {"name": "classification", "labels": ["ham", "spam"], "positive": "spam", "mode": "generate"}
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps({"x": {"file_name": "x.json", "metric": asked}}))
    (spec,) = load_registry(tmp_path).entry("x").metrics
    assert spec.mode == "generate"
    assert metrics.load(spec.name).select_by == "macro_f1"
    path.write_text(json.dumps({"x": {"file_name": "x.json", "metric": {"name": "yes_no", "labels": ["a"]}}}))
    with pytest.raises(TunebookError, match="unknown option 'labels'"):
        load_registry(tmp_path).entry("x")


def test_score_and_compare_take_the_labels_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, wrong in (("a", 3), ("b", 9)):
        rows = [
            {
                "prompt": str(n),
                "predict": f"Label: {'xyz'[(n + (n % wrong == 0)) % 3]}",
                "label": "xyz"[n % 3],
            }
            for n in range(90)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for workers in ("1", "2"):
        done = CliRunner().invoke(score, ["classification", "a.jsonl", "--json", "--workers", workers])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["metric"] == 'classification{"labels": ["x", "y", "z"]}'
        assert found["figures"]["accuracy"]["value"] == pytest.approx(60 / 90)
        assert sum(map(sum, (row.values() for row in found["confusion"].values()))) == 90
    done = CliRunner().invoke(compare, ["a.jsonl", "b.jsonl", "--metric", "classification"])
    assert done.exit_code == 0, done.output
    assert "b is better than a by accuracy on 90 rows" in " ".join(done.output.split())


def test_classes_beyond_what_is_read_are_no_fault(tmp_path, monkeypatch):
    from tunebook.checks import data as checks

    rows = [{"instruction": str(n), "input": "", "output": "a" if n < 6 else "b"} for n in range(9)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"x": {"file_name": "x.json", "metric": "classification"}})
    )
    registry = load_registry(tmp_path)
    monkeypatch.setattr(checks, "MAX_ROWS", 5)
    assert checks.check_datasets(registry, ["x"], ["x"]) == []
    # An engine that takes no more itself has one class only.
    (fault,) = checks.check_datasets(registry, ["x"], ["x"], max_rows=4)
    assert "all references are 'a'" in fault.problem
