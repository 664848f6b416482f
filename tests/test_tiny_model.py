import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.engine

SCRIPTS = Path(__file__).parents[1] / "scripts"
FAMILIES = ("gemma", "gemma2", "gemma3", "llama", "qwen3", "qwen3_5")
MODEL_TYPES = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text"}
MESSAGES = [
    {"role": "user", "content": "Will the user like it?\nSilent Harbor | Drama"},
    {"role": "assistant", "content": "No"},
    {"role": "user", "content": "And this: Léon, 4 × ★?"},
]
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def make_tiny_model() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        import make_tiny_model

        yield make_tiny_model


@pytest.fixture(scope="module")
def models(make_tiny_model, tmp_path_factory) -> dict[str, Path]:
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        make_tiny_model.build(family, folder)
    return folders


def load(folder: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_building_twice_gives_the_same_bytes(make_tiny_model, models, tmp_path, family):
    make_tiny_model.build(family, tmp_path)
    for path in models[family].iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_its_familys_and_generates(models, family):
    tokenizer, model = load(models[family])
    assert model.config.model_type == MODEL_TYPES.get(family, family)
    assert model.config.vocab_size == len(tokenizer)
    assert model.num_parameters() < 250_000
    prompt = tokenizer("Silent Harbor", return_tensors="pt")
    assert (
        model.generate(**prompt, max_new_tokens=2, min_new_tokens=2).shape[1] == prompt.input_ids.shape[1] + 2
    )
    assert len(model.generation_config.eos_token_id) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_any_text_survives_the_tokenizer(models, family):
    tokenizer, _ = load(models[family])
    for text in ("Léon — 4 × ★?", "Yes", "a\n\n\tb  c", "日本", "<|im_start|>user"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_an_answer_is_one_token_where_it_stands(models, family, answer):
    tokenizer, _ = load(models[family])
    options = {"add_generation_prompt": True, "enable_thinking": False, "tokenize": False}
    prompt = tokenizer.apply_chat_template(MESSAGES, **options)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    after = tokenizer.encode(prompt + answer, add_special_tokens=False)
    assert after[:-1] == before
    assert tokenizer.decode(after[-1:]) == answer


@pytest.mark.parametrize(
    ("family", "template"),
    [
        ("qwen3", "qwen3"),
        ("qwen3_5", "qwen3_5"),
        ("gemma", "gemma"),
        ("gemma2", "gemma2"),
        ("gemma3", "gemma2"),
        ("gemma3", "gemma3"),
    ],
)
def test_the_chat_template_gives_the_tokens_that_the_engine_trains_on(models, family, template):
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    tokenizer, _ = load(models[family])
    options = {"add_generation_prompt": True, "enable_thinking": False, "tokenize": False}
    ours = tokenizer.apply_chat_template(MESSAGES, **options)
    engine = get_template_and_fix_tokenizer(
        tokenizer, DataArguments(template=template, enable_thinking=False)
    )
    prompt, _ = engine.encode_oneturn(tokenizer, [*MESSAGES, {"role": "assistant", "content": "Yes"}])
    assert tokenizer.encode(ours, add_special_tokens=False) == prompt


def test_a_system_message_is_rendered_by_qwen3_and_refused_by_gemma(models):
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    text = load(models["qwen3"])[0].apply_chat_template(messages, tokenize=False)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    for family in ("gemma", "gemma2"):
        with pytest.raises(TemplateError, match="System role not supported"):
            load(models[family])[0].apply_chat_template(messages, tokenize=False)


def test_gemma3_puts_a_system_message_before_the_first_question(models):
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    text = load(models["gemma3"])[0].apply_chat_template(messages, tokenize=False)
    assert text.startswith("<bos><start_of_turn>user\nBe brief.\n\nWill the user like it?")
    assert text.count("Be brief.") == 1


def test_gemma3_has_a_layer_of_each_kind_of_attention(models):
    config = load(models["gemma3"])[1].config
    assert config.layer_types == ["sliding_attention", "full_attention"]


def test_the_last_answer_carries_an_empty_thought_as_qwen3_writes_it(models):
    text = load(models["qwen3"])[0].apply_chat_template(MESSAGES[:2], tokenize=False)
    assert text.endswith(f"<|im_start|>assistant\n{EMPTY_THOUGHT}No<|im_end|>\n")


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    command = [sys.executable, SCRIPTS / "make_tiny_model.py", "-o", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds files, but no model" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
