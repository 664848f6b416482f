import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tunebook.cli.main import COMMANDS, DATA_COMMANDS, LazyGroup, cli
from tunebook.errors import TunebookError

REPOSITORY = Path(__file__).resolve().parents[1]


def invoke(*arguments: str):
    result = CliRunner().invoke(cli, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def here(monkeypatch) -> Path:
    """The repository as the current folder."""
    monkeypatch.chdir(REPOSITORY)
    return REPOSITORY


TABLES = [("", COMMANDS), ("data ", DATA_COMMANDS)]


@pytest.mark.parametrize(
    ("group", "table", "verb"), [(group, table, verb) for group, table in TABLES for verb in table]
)
def test_the_help_of_each_verb_is_that_of_the_table_and_ends_with_an_example(group, table, verb):
    command = LazyGroup(table=table).get_command(None, verb)
    assert command.name == verb
    assert command.get_short_help_str(limit=200) == table[verb][2]
    assert len(table[verb][2]) <= 66, "a line of the list of verbs in a terminal of 80 columns"
    text = CliRunner().invoke(command, ["--help"]).output
    assert f"\n  Example:\n    tunebook {group}{verb} " in text


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from tunebook.cli.main import cli; cli(['--help'], standalone_mode=False);"
        "heavy = {'torch', 'numpy', 'rich', 'yaml', 'jinja2', 'tunebook.metrics'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Train a recipe with its engine." in done.stdout


def test_training_imports_neither_torch_nor_an_engine():
    script = (
        "import sys; import tunebook.cli.train, tunebook.cli.recipes;"
        "heavy = {'torch', 'transformers', 'llamafactory', 'omegaconf', 'numpy', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_ls_lists_every_recipe_of_the_tree(here):
    listed = json.loads(invoke("ls", "--json").output)
    files = {str(path) for path in (here / "recipes").rglob("*.yaml") if "overlays" not in path.parts}
    assert {item["path"] for item in listed} == {
        path for path in files if Path(path).relative_to(here).parts[1] in {"llamafactory", "axolotl"}
    }
    table = invoke("ls").output
    assert all(item["name"] in table for item in listed)
    assert invoke("ls", "--engine", "axolotl", "--json").exit_code == 0


def test_ls_lists_the_good_recipes_and_names_the_broken(tmp_path, monkeypatch):
    folder = tmp_path / "recipes" / "llamafactory"
    folder.mkdir(parents=True)
    (tmp_path / "datasets_info").mkdir()
    (folder / "good.yaml").write_text("# hardware: a laptop\nmodel_name_or_path: m\n")
    (folder / "bad.yaml").write_text("a: 1\na: 2\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["ls"])
    assert "llamafactory/good" in result.output
    assert "a laptop" in result.output
    assert isinstance(result.exception, TunebookError)
    assert "bad.yaml, line 2: the key 'a' is there twice" in result.exception.problem


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    (tmp_path / "mine.yaml").write_text(
        "# purpose: a test\n# expected: 1.0\n\nmodel_name_or_path: m\nkwargs: {a: 1}\nlearning_rate: 1e-4  # as there\n"
    )
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "smoke.yaml").write_text("max_steps: 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show_prints_a_recipe_that_says_who_changed_what(mine):
    shown = invoke("show", "mine.yaml", "-o", "smoke", "kwargs.b=2").stdout
    assert yaml.safe_load(shown) == {
        "model_name_or_path": "m",
        "kwargs": {"a": 1, "b": 2},
        "learning_rate": 1e-4,
        "max_steps": 1,
    }
    assert "max_steps: 1  # overlay smoke" in shown
    assert "kwargs:  # override" in shown
    assert shown.startswith("# purpose: a test\n# expected: 1.0\n\n# What the header expects")
    as_json = json.loads(invoke("show", "mine.yaml", "-o", "smoke", "--json").stdout)
    assert as_json["origins"]["max_steps"] == "overlay smoke"


def test_cp_copies_the_file_as_it_stands_or_with_changes_merged_in(mine):
    invoke("cp", "mine.yaml", "copy.yaml")
    assert (mine / "copy.yaml").read_text() == (mine / "mine.yaml").read_text()
    invoke("cp", "mine.yaml", "folder/", "-o", "smoke", "learning_rate=1e-5")
    values = yaml.safe_load((mine / "folder" / "mine.yaml").read_text())
    assert (values["max_steps"], values["learning_rate"]) == (1, 1e-5)


def test_cp_overwrites_nothing_and_wants_a_yaml_name(mine):
    with pytest.raises(TunebookError, match=r"mine\.yaml exists"):
        invoke("cp", "mine.yaml", "mine.yaml")
    with pytest.raises(TunebookError, match=r"engines read recipes from \.yaml files"):
        invoke("cp", "mine.yaml", "copy.txt")


def test_an_unknown_verb_is_wrong_use():
    assert CliRunner().invoke(cli, ["trian"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian"], "Did you mean train?"),
        (["data", "splt"], "Did you mean split?"),
        (
            ["train", "x", "--learning_rate", "1"],
            "Keys of a recipe are written without dashes: learning_rate=VALUE.",
        ),
        (["report", "x", "--outptu", "y"], "--output"),
    ],
)
def test_what_is_misspelt_is_answered_with_what_was_meant(words, hint):
    done = subprocess.run([sys.executable, "-m", "tunebook", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert hint in " ".join(done.stderr.split())
