from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.recipes import engine_yaml
from tunebook.recipes.catalog import find_recipe, read_header, read_recipe, recipe_files

SCALARS = [
    *("1e-4", "1.0e-4", "1E5", "1e+3", "-2e-6", "1_0e2", ".5", ".5e-3", ".5e3", "3.", "1.5", "-1", "+7", "0"),
    *(
        "010",
        "0o17",
        "0x1F",
        "0b11",
        "1_000",
        "2024_01",
        "1:30",
        "1:30.5",
        "190:20:30",
        "--1",
        "1e",
        "e5",
        "1.2.3",
    ),
    *("yes", "No", "ON", "off", "true", "False", "TRUE", "y", "n", "null", "~", "Null", "", "none", "None"),
    *(
        ".inf",
        "-.INF",
        ".nan",
        "inf",
        "nan",
        "2024-01-31",
        "2024-01-31 10:00:00",
        "'1e-4'",
        '"yes"',
        "a: b",
        "=",
        "<<",
    ),
    *(
        "[1e-4, no, x]",
        "{a: 1e-4, b: [off]}",
        "q_proj,v_proj",
        "Qwen/Qwen3-0.6B",
        "- a",
        "!!str 1",
        "1 # note",
        "x#y",
    ),
]


def omegaconf_reads(text: str):
    omegaconf = pytest.importorskip("omegaconf")
    return omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.create(text))


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_value_is_read_as_llamafactory_reads_it(scalar):
    text = f"key: {scalar}\n"
    try:
        expected = omegaconf_reads(text)
    except yaml.YAMLError:
        with pytest.raises(TunebookError):
            engine_yaml.parse_mapping(text, "llamafactory", source="x")
        return
    found = engine_yaml.parse_mapping(text, "llamafactory", source="x")
    assert repr(found) == repr(expected)  # repr, since nan differs from itself and 1 equals True


@given(st.text(alphabet="0123456789.eE+-_:abnoyxZ ", min_size=1, max_size=8))
def test_any_plain_scalar_is_read_as_llamafactory_reads_it(scalar):
    text = f"key: {scalar}\n"
    try:
        expected = repr(omegaconf_reads(text))
    except (yaml.YAMLError, ValueError):
        with pytest.raises((TunebookError, ValueError)):
            engine_yaml.parse_mapping(text, "llamafactory", source="x")
        return
    assert repr(engine_yaml.parse_mapping(text, "llamafactory", source="x")) == expected


def test_axolotl_reads_an_exponent_without_a_dot_as_text():
    assert engine_yaml.parse_mapping("a: 1e-4", "axolotl", source="x") == {"a": "1e-4"}
    assert engine_yaml.parse_mapping("a: 1e-4", "llamafactory", source="x") == {"a": 1e-4}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
    | st.sampled_from([scalar for scalar in SCALARS if scalar]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "yes", "1e-4", "b"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["lr", "on", "path"]), VALUES, min_size=1))
def test_what_we_write_is_read_back_by_both_engines(values):
    text = engine_yaml.dump(values)
    assert engine_yaml.parse_mapping(text, "llamafactory", source="x") == values
    assert engine_yaml.parse_mapping(text, "axolotl", source="x") == values


def test_keys_that_stand_twice_are_named_with_their_lines():
    text = "lr: 1\nkwargs:\n  min_lr: 1\n  min_lr: 2\nlr: 2\n"
    with pytest.raises(TunebookError) as error:
        engine_yaml.parse_mapping(text, "llamafactory", source="r.yaml")
    assert "r.yaml, line 5: the key 'lr' is there twice" in error.value.problem
    assert "r.yaml, line 4: the key 'min_lr' is there twice" in error.value.problem
    assert engine_yaml.parse_mapping(text, "axolotl", source="r.yaml") == {"lr": 2, "kwargs": {"min_lr": 2}}


def test_a_merged_key_may_be_overridden_as_in_llamafactory():
    text = "a: &a {x: 1, y: 1}\nb: &b\n  <<: *a\n  x: 2\nc:\n  <<: *b\n"
    assert engine_yaml.parse_mapping(text, "llamafactory", source="x") == omegaconf_reads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n\tb: 2\n", "r.yaml, line 2: a tab where YAML needs spaces"),
        ("a:\n  b: 1\n\tc: 2\n", "r.yaml, line 3: a tab where YAML needs spaces"),
        ("a: 1\nb: [1, 2\nc: 3\n", "r.yaml, line 3"),
        ("a: b: c\n", "r.yaml, line 1"),
        ("- a\n- b\n", "r.yaml: holds a list, not a mapping"),
        ("just text\n", "r.yaml: holds a str, not a mapping"),
        ("# nothing\n", "r.yaml: holds no keys"),
        ("yes: 1\n", "r.yaml: the key True is read as bool"),
    ],
)
def test_what_is_no_recipe_is_named_with_file_and_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text)
    with pytest.raises(TunebookError) as error:
        engine_yaml.read_mapping(Path("r.yaml"), "llamafactory")
    assert message in error.value.problem
    assert error.value.fix


def test_a_file_that_is_no_text_is_an_error(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(TunebookError, match="not UTF-8"):
        read_recipe(tmp_path / "r.yaml", tmp_path)


def test_the_header_is_the_leading_comment_and_a_fact_may_take_several_lines():
    text = (
        "# purpose: shows the metric rising:\n#   on a laptop.\n# hardware: 2 CPU cores\n#\n"
        "# expected: accuracy 0.9\n\n# source: too late, this is no header\na: 1\n"
    )
    assert read_header(text) == {
        "purpose": "shows the metric rising: on a laptop.",
        "hardware": "2 CPU cores",
        "expected": "accuracy 0.9",
    }


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "recipes"
    for name, text in {
        "llamafactory/demo/lora_sft_recommend": "# purpose: a demo\nmodel_name_or_path: m\nlearning_rate: 1e-4\n",
        "llamafactory/demo/overlays/smoke": "max_steps: 1\n",
        "llamafactory/overlays/zero3": "deepspeed: z3.json\n",
        "axolotl/demo/lora_sft_recommend": "base_model: m\nlearning_rate: 1e-4\n",
        "deepspeed/other": "a: 1\n",
    }.items():
        (root / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return root


def test_overlays_and_engine_settings_are_not_listed_as_recipes(root):
    assert [read_recipe(path, root).name for path in recipe_files(root)] == [
        "axolotl/demo/lora_sft_recommend",
        "llamafactory/demo/lora_sft_recommend",
    ]


@pytest.mark.parametrize(
    "given_name",
    [
        "llamafactory/demo/lora_sft_recommend",
        "llamafactory/demo/lora_sft_recommend.yaml",
        "recipes/llamafactory/demo/lora_sft_recommend.yaml",
    ],
)
def test_a_recipe_is_found_by_name_and_by_path_from_anywhere(root, given_name, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = find_recipe(given_name, root)
    assert (recipe.name, recipe.engine) == ("llamafactory/demo/lora_sft_recommend", "llamafactory")
    assert recipe.values["learning_rate"] == 1e-4
    assert recipe.header == {"purpose": "a demo"}


def test_the_folder_tells_the_engine_and_the_engine_how_to_read(root):
    assert find_recipe("axolotl/demo/lora_sft_recommend", root).values["learning_rate"] == "1e-4"


def test_an_unknown_recipe_is_answered_with_the_nearest_names(root):
    with pytest.raises(TunebookError, match="no such recipe: llamafactory/demo/lora_recommend") as error:
        find_recipe("llamafactory/demo/lora_recommend", root)
    assert "llamafactory/demo/lora_sft_recommend" in error.value.fix
    with pytest.raises(TunebookError) as error:
        find_recipe("lora_sft_recommend", root)
    assert "axolotl/demo/lora_sft_recommend" in error.value.fix
    with pytest.raises(TunebookError, match="is a folder, not a recipe"):
        find_recipe("recipes", root)


def test_a_recipe_from_elsewhere_is_known_by_the_key_of_its_model(root, tmp_path):
    (tmp_path / "mine.yaml").write_text("base_model: m\nlearning_rate: 1e-4\n")
    recipe = find_recipe("mine.yaml", root)
    assert (recipe.name, recipe.engine, recipe.values["learning_rate"]) == ("mine.yaml", "axolotl", "1e-4")
    (tmp_path / "mine.yaml").write_text("learning_rate: 1e-4\n")
    with pytest.raises(TunebookError, match=r"neither of the keys `model_name_or_path` .* and `base_model`"):
        find_recipe("mine.yaml", root)
