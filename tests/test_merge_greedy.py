"""What a greedy soup decides, and what it refuses; no torch is needed."""

import pytest
from click.testing import CliRunner

from merge_cases import make_adapter, make_model
from tunebook.cli.main import cli
from tunebook.errors import TunebookError
from tunebook.merging.greedy import choose


def soup(figures, of, *, larger=True):
    """Which are kept, and what was tried, in order."""
    tried = []

    def evaluate(members):
        tried.append(members)
        return of[members]

    steps = choose(figures, evaluate, larger_is_better=larger)
    return [step.position for step in steps if step.kept], tried, steps


def test_the_best_comes_first_and_what_spoils_the_soup_is_left_out():
    kept, tried, steps = soup([0.5, 0.8, 0.7], {(1, 2): 0.79, (1, 0): 0.85})
    assert kept == [1, 0]
    # What was left out is in no later trial.
    assert tried == [(1, 2), (1, 0)]
    assert [tuple(step) for step in steps] == [
        (1, None, 0.8, True),
        (2, 0.8, 0.79, False),
        (0, 0.8, 0.85, True),
    ]


def test_what_changes_nothing_is_kept_and_the_next_is_measured_against_the_soup():
    kept, _, steps = soup([0.9, 0.8, 0.7], {(0, 1): 0.9, (0, 1, 2): 0.899})
    assert kept == [0, 1]
    assert steps[2].without == 0.9
    # Better than every input, but worse than the soup.
    kept, _, _ = soup([0.9, 0.8, 0.7], {(0, 1): 0.95, (0, 1, 2): 0.94})
    assert kept == [0, 1]


def test_smaller_may_be_better():
    kept, tried, _ = soup([2.0, 1.0, 3.0], {(1, 0): 1.1, (1, 2): 0.9}, larger=False)
    assert tried == [(1, 0), (1, 2)]
    assert kept == [1, 2]


@pytest.mark.parametrize("larger", [True, False])
def test_equals_come_in_the_order_given(larger):
    kept, tried, _ = soup([0.5, 0.5, 0.5], {(0, 1): 0.5, (0, 1, 2): 0.5}, larger=larger)
    assert tried == [(0, 1), (0, 1, 2)]
    assert kept == [0, 1, 2]


def test_a_figure_that_is_not_finite_keeps_nothing():
    kept, tried, steps = soup([None, 0.8, 0.7], {(1, 2): None})
    assert kept == [1]
    assert tried == [(1, 2)]
    assert tuple(steps[2]) == (0, 0.8, None, False)
    with pytest.raises(ValueError, match="finite"):
        choose([None, None], lambda members: 1.0, larger_is_better=True)


def merge(tmp_path, *arguments):
    CliRunner().invoke(
        cli,
        ["merge", *map(str, arguments), "-o", str(tmp_path / "out")],
        catch_exceptions=False,
        standalone_mode=False,
    )


def test_what_a_greedy_soup_cannot_use_is_refused_before_anything_is_written(tmp_path):
    models = [make_model(tmp_path / name) for name in ("a", "b")]
    before = sorted(tmp_path.rglob("*"))
    for arguments, told in [
        ([models[0], "--greedy", "dev"], "chooses among models, and 1 is given"),
        ([*models, "--greedy", "dev", "--weights", "0.5,0.5"], "uniform average"),
        ([*models, "--greedy", "dev"], "how they are to be loaded and asked"),
        ([*models, "--recipe", "mine.yaml"], "--recipe is for --greedy"),
        ([*models, "--evals", "elsewhere"], "--evals is for --greedy"),
        ([models[0], make_adapter(tmp_path / "c" / "d", models[0]), "--greedy", "dev"], "adapter"),
    ]:
        with pytest.raises(TunebookError, match=told):
            merge(tmp_path, *arguments)
    assert sorted(path for path in tmp_path.rglob("*") if "c" not in path.parts) == before


def test_the_card_tells_every_step():
    from tunebook.merging.record import greedy_lines

    step = {"candidate": "a", "own": 0.5, "without": None, "with": 0.5, "n": 1200, "n_unparsed": 3}
    step["n_unparsed_with"] = 2
    lines = greedy_lines(
        {
            "figure": "macro_f1",
            "dataset": "dev",
            "larger_is_better": True,
            "recipe": "r.yaml",
            "note": "dev chose",
            "steps": [
                {**step, "kept": True},
                {**step, "candidate": "b", "without": 0.5, "with": 0.4, "kept": False},
            ],
        }
    )
    assert "| `a` | 0.5 | - | 0.5 | 1,200 | 3 | 2 | kept |" in lines
    assert "| `b` | 0.5 | 0.5 | 0.4 | 1,200 | 3 | 2 | left out |" in lines
    assert lines[-1] == "dev chose"
