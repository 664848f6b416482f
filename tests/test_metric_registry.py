import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from tunebook import extensions, metrics
from tunebook.errors import TunebookError
from tunebook.types import Metric, Score

BUILT_IN = tuple(metrics.BUILT_IN)
# The example of docs/metrics.md; a test below holds the two equal.
EXAMPLE = '''\
"""Share of the reference's words that the prediction names."""


def word_recall(prediction: str, reference: str) -> float:
    wanted = set(reference.lower().split())
    named = wanted & set(prediction.lower().split())
    return len(named) / len(wanted)
'''


@pytest.fixture
def my_metrics(tmp_path, monkeypatch):
    """A folder that a user works in, with a module of metrics."""
    (tmp_path / "my_metrics.py").write_text(
        EXAMPLE
        + """

def several(prediction, reference):
    return {"score": 0.5, "length": float(len(prediction))}

def right(prediction, reference):
    return prediction == reference

def text(prediction, reference):
    return "good"

def nan(prediction, reference):
    return float("nan")

number = 3
"""
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_metrics", None)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_metric_loads_under_its_name(name):
    metric = metrics.load(name)
    assert metric.name == name
    assert metric.select_by in metric.names
    assert metric.smaller_is_better <= set(metric.names)
    assert name in metrics.names()


def test_importing_the_registry_imports_no_metric_and_no_numpy():
    code = "import sys, tunebook.metrics; print(*[m for m in sys.modules if m.split('.')[0] in ('numpy', 'nltk', 'torch')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_function_of_the_users_is_a_metric(my_metrics):
    metric = metrics.load("my_metrics:word_recall")
    scores = [metric.score("red green", "red blue"), metric.score("blue", "blue")]
    assert metric.aggregate(scores) == {"score": 0.75, "unparsed_rate": 0.0}
    assert metric.select_by == "score"


def test_a_function_may_return_several_figures_or_a_bool(my_metrics):
    several = metrics.load("my_metrics:several")
    assert several.aggregate([several.score("four", "x")])["length"] == 4.0
    right = metrics.load("my_metrics:right")
    assert right.aggregate([right.score("a", "a"), right.score("a", "b")])["score"] == 0.5


@pytest.mark.parametrize("name", ["text", "nan"])
def test_what_is_no_number_is_refused(my_metrics, name):
    metric = metrics.load(f"my_metrics:{name}")
    with pytest.raises(TunebookError, match=f"my_metrics:{name}"):
        metric.score("a", "b")


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("my_metrics:missing", "has no 'missing'"),
        ("my_metrics:number", "neither a function nor a Metric"),
        ("no_such_package:f", "ModuleNotFoundError"),
        (":f", "does not name a function"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error_the_user_can_fix(my_metrics, reference, problem):
    with pytest.raises(TunebookError, match=problem):
        metrics.load(reference)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(TunebookError, match="there is no metric 'f2'") as caught:
        metrics.load("f2")
    assert "yes_no" in caught.value.fix


def offer(monkeypatch, *points):
    monkeypatch.setattr(extensions, "entry_points", lambda group: [p for p in points if p.group == group])


def test_an_installed_package_offers_a_metric(my_metrics, monkeypatch):
    offer(monkeypatch, EntryPoint("recall", "my_metrics:word_recall", metrics.GROUP))
    sys.path.append(".")
    assert "recall" in metrics.names()
    assert metrics.load("recall").score("a", "a").values == {"score": 1.0}


def test_a_name_that_is_taken_stops_the_run(monkeypatch):
    offer(monkeypatch, EntryPoint("gsm8k", "theirs:metric", metrics.GROUP))
    with pytest.raises(TunebookError, match="tunebook itself"):
        metrics.names()
    offer(monkeypatch, EntryPoint("x", "one:f", metrics.GROUP), EntryPoint("x", "two:f", metrics.GROUP))
    with pytest.raises(TunebookError, match="two entry points"):
        metrics.load("x")


def test_a_plugin_that_fails_to_import_stops_the_run(monkeypatch):
    offer(monkeypatch, EntryPoint("broken", "no_such_package:f", metrics.GROUP))
    with pytest.raises(TunebookError, match="entry point 'broken'"):
        metrics.load("broken")


def test_a_metric_object_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "whole_metric.py").write_text(
        "from tunebook.metrics import gsm8k\nfrom dataclasses import replace\n"
        "METRIC = replace(gsm8k.METRIC, name='mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    metric = metrics.load("whole_metric:METRIC")
    assert isinstance(metric, Metric)
    assert isinstance(metric.score("#### 1", "1"), Score)


def test_the_documented_example_is_the_tested_one(pytestconfig):
    assert EXAMPLE in (pytestconfig.rootpath / "docs" / "metrics.md").read_text(encoding="utf-8")
