"""What is taken for a secret: keys of either engine that are none stay, planted ones go."""

import pytest

from tunebook.engines.schema import load_schema
from tunebook.redact import MARK, redact, redact_text

PLANTED = [
    *("token", "hub_token", "HF_TOKEN", "hf_token", "hf_token_value", "x-auth-token", "token_1", "token_id"),
    *("api_key", "apikey", "WANDB_API_KEY", "comet_api_key", "aws_secret_access_key", "access_key"),
    *(
        "password",
        "db_password",
        "pwd",
        "client_secret",
        "secret_key",
        "swanlab_lark_secret",
        "credentials",
        "auth",
    ),
]
SECRETS_OF_ENGINES = {
    *("hf_hub_token", "hub_token", "ms_hub_token", "om_hub_token", "hf_use_auth_token"),
    *("api_key", "comet_api_key", "swanlab_api_key", "swanlab_lark_secret"),
}


def keys_of(engine):
    schema = load_schema(engine)
    yield from schema["keys"]
    for part in ("models", "plugins"):
        for specs in schema.get(part, {}).values():
            yield from specs


@pytest.mark.parametrize("key", PLANTED)
def test_a_planted_secret_goes_whatever_it_looks_like(key):
    assert redact({key: "short"}) == {key: MARK}
    assert redact({"outer": [{key: "short"}]}) == {"outer": [{key: MARK}]}


@pytest.mark.parametrize("engine", ["llamafactory", "axolotl"])
def test_of_the_engines_own_keys_only_secrets_are_taken_for_secrets(engine):
    assert {key for key in keys_of(engine) if redact("alltoall", key) == MARK} <= SECRETS_OF_ENGINES


def test_a_key_about_tokens_of_text_keeps_its_value_but_not_a_secret_in_it():
    secret = "hf_" + "a1B2" * 8
    given = {"moe_token_dispatcher_type": "alltoall", "token_accuracy": "0.9", "token_note": secret}
    assert redact(given) == {
        "moe_token_dispatcher_type": "alltoall",
        "token_accuracy": "0.9",
        "token_note": MARK,
    }


def test_an_assignment_in_text_goes_with_its_name_kept():
    assert redact_text("moe_token_dispatcher_type: alltoall") == "moe_token_dispatcher_type: alltoall"
    assert redact_text("HF_TOKEN=abcdefgh run") == f"HF_TOKEN={MARK} run"
