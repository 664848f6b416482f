from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunebook.errors import TunebookError
from tunebook.recipes.catalog import find_recipe
from tunebook.recipes.overlays import find_overlay, overlay_names, parse_overrides, resolve
from tunebook.types import Recipe


def recipe_of(values) -> Recipe:
    return Recipe(name="r", engine="llamafactory", path=Path("r.yaml"), values=values, header={})


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "recipes"
    for name, text in {
        "demo/lora": "model_name_or_path: m\nkwargs: {min_lr: 1.0e-6, power: 2}\ntargets: [a, b]\ndeepspeed: z2.json\n",
        "demo/overlays/smoke": "max_steps: 1\nkwargs: {min_lr: 1e-5}\n",
        "overlays/smoke": "max_steps: 2\n",
        "overlays/one_gpu": "deepspeed: null\ntargets: [c]\n",
    }.items():
        path = root / "llamafactory" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return root


def test_mappings_are_merged_lists_replaced_and_null_removes_a_key(root):
    recipe = find_recipe("llamafactory/demo/lora", root)
    resolved = resolve(recipe, root, ["smoke", "one_gpu"], ["kwargs.power=3", "targets=[d, e]"])
    assert resolved.recipe.values == {
        "model_name_or_path": "m",
        "kwargs": {"min_lr": 1e-5, "power": 3},
        "targets": ["d", "e"],
        "max_steps": 1,
    }
    assert resolved.recipe.overlays == ("smoke", "one_gpu", "kwargs.power=3", "targets=[d, e]")
    assert recipe.values["kwargs"] == {"min_lr": 1e-6, "power": 2}, "the recipe itself is not changed"


def test_each_value_knows_who_set_it(root):
    recipe = find_recipe("llamafactory/demo/lora", root)
    assert resolve(recipe, root, ["smoke", "one_gpu"], ["kwargs.power=3"]).origins == {
        "model_name_or_path": "recipe",
        "kwargs.min_lr": "overlay smoke",
        "kwargs.power": "override",
        "targets": "overlay one_gpu",
        "max_steps": "overlay smoke",
    }


def test_an_overlay_beside_the_recipe_wins_over_the_engines_and_a_path_over_both(root, tmp_path):
    recipe = find_recipe("llamafactory/demo/lora", root)
    assert find_overlay("smoke", recipe, root) == root / "llamafactory/demo/overlays/smoke.yaml"
    assert find_overlay("one_gpu", recipe, root) == root / "llamafactory/overlays/one_gpu.yaml"
    (tmp_path / "smoke.yaml").touch()
    assert find_overlay("smoke.yaml", recipe, root) == Path("smoke.yaml")
    assert overlay_names(recipe, root) == ["one_gpu", "smoke"]


def test_an_unknown_overlay_is_answered_with_the_nearest_name(root):
    recipe = find_recipe("llamafactory/demo/lora", root)
    with pytest.raises(TunebookError, match="no overlay 'smok' for llamafactory/demo/lora") as error:
        find_overlay("smok", recipe, root)
    assert error.value.fix == "did you mean smoke?"
    with pytest.raises(TunebookError) as error:
        find_overlay("xyz", recipe, root)
    assert error.value.fix == "choose one of: one_gpu, smoke"
    with pytest.raises(TunebookError, match=r"no such overlay file: mine/x\.yaml"):
        find_overlay("mine/x.yaml", recipe, root)


def test_a_mapping_that_meets_a_list_is_an_error():
    with pytest.raises(TunebookError, match="override: targets is a mapping where the recipe has a list"):
        resolve(recipe_of({"targets": ["a"]}), Path(), (), ["targets={a: 1}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_steps", "is not of the form key=value"),
        ("+max_steps=1", "is not of the form key=value"),
        ("=1", "is not of the form key=value"),
        ("targets=[a, b", "the value is not YAML"),
    ],
)
def test_what_is_no_override_is_named(override, message):
    with pytest.raises(TunebookError) as error:
        parse_overrides(["lr=1", override])
    assert f"{override}: {message}" in error.value.problem


OVERRIDES = [
    *("a=1", "a=1e-4", "a=", "a=x=y", "a='no'", "a=no", "a=[1, no]", "a={b: 1e-4, c: 2}", "a=null", "a= 3"),
    *("a.b=1", "a.b.c=2", "a[b]=3", "a[b].c=4", "a.b={c: 1}", "b=url?x=1#y", "b.c=null", "a={}", "a=[]"),
]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(OVERRIDES), min_size=1, max_size=4))
def test_overrides_are_read_as_llamafactory_reads_its_command_line(overrides):
    omegaconf = pytest.importorskip("omegaconf")
    try:
        expected = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.from_cli(overrides))
    except (ValueError, TypeError):
        assume(False)  # such as a={...} followed by a=[...]: it refuses, here the later one wins
    assert parse_overrides(overrides) == expected


MAPPINGS = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)
RECIPES = st.dictionaries(st.sampled_from("abc"), MAPPINGS, min_size=1)


@settings(max_examples=60)
@given(RECIPES, RECIPES)
def test_an_overlay_merges_as_omegaconf_merges(base, change):
    omegaconf = pytest.importorskip("omegaconf")
    import tempfile

    from tunebook.recipes import engine_yaml

    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "change.yaml"
        overlay.write_text(engine_yaml.dump(change))
        try:
            expected = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.merge(base, change))
        except (TypeError, ValueError, omegaconf.errors.OmegaConfBaseException):
            with pytest.raises(TunebookError, match="where the recipe has a"):
                resolve(recipe_of(base), Path(), [str(overlay)])
            return
        assert resolve(recipe_of(base), Path(), [str(overlay)]).recipe.values == expected
