"""Every usual kind of secret goes, in the places where logs and settings have it; the words around it stay."""

import random
import string

import pytest

from tunebook.redact import MARK, redact_text

RANDOM = random.Random(0)


def some(count, alphabet=string.ascii_letters + string.digits):
    return "".join(RANDOM.choice(alphabet) for _ in range(count))


HEX = "0123456789abcdef"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIabc\ndef==\n-----END PRIVATE KEY-----"
KEYS = {
    "hugging face": "hf_" + some(34),
    "openai": "sk-proj-" + some(40),
    "anthropic": "sk-ant-api03-" + some(40),
    "stripe": "sk_live_" + some(24),
    "github": "ghp_" + some(36),
    "gitlab": "glpat-" + some(20),
    "aws": "AKIA" + some(16, string.ascii_uppercase + string.digits),
    "aws session": "ASIA" + some(16, string.ascii_uppercase + string.digits),
    "google": "AIza" + some(35),
    "google oauth": "ya29." + some(40),
    "slack": "xoxb-" + some(24),
    "slack app": "xapp-1-" + some(24),
    "groq": "gsk_" + some(40),
    "npm": "npm_" + some(36),
    "pypi": "pypi-" + some(60),
    "sendgrid": f"SG.{some(22)}.{some(43)}",
    "replicate": "r8_" + some(37),
    "mailgun": "key-" + some(32, HEX),
    "twilio": "SK" + some(32, HEX),
    "digitalocean": "dop_v1_" + some(64, HEX),
    "shopify": "shpat_" + some(32, HEX),
    "linear": "lin_api_" + some(40),
    "notion": "ntn_" + some(46),
    "figma": "figd_" + some(40),
    "vault": "hvs." + some(24),
    "docker": "dckr_pat_" + some(27),
    "postman": f"PMAK-{some(24, HEX)}-{some(34, HEX)}",
    "new relic": "NRAK-" + some(27),
    "grafana": "glsa_" + some(32),
    "sentry": "sntrys_" + some(40),
    "tailscale": "tskey-auth-" + some(20),
    "nvidia": "nvapi-" + some(60),
    "perplexity": "pplx-" + some(48),
    "together": "tgp_v1_" + some(40),
    "xai": "xai-" + some(60),
    "tencent": "AKID" + some(32),
    "alibaba": "LTAI" + some(20),
    "databricks": "dapi" + some(32, HEX),
    "atlassian": "ATATT3" + some(40),
    "langsmith": "lsv2_pt_" + some(32, HEX) + "_" + some(10, HEX),
    "pinecone": "pcsk_" + some(40),
    "supabase": "sbp_" + some(40, HEX),
    "runpod": "rpa_" + some(40, string.ascii_uppercase + string.digits),
    "telegram": "1234567890:AA" + some(33),
    "doppler": "dp.pt." + some(43),
    "cloudflare": f"v1.0-{some(24, HEX)}-{some(146, HEX)}",
    "elevenlabs": "sk_" + some(48, HEX),
    "bitbucket": "ATBB" + some(28),
    "mapbox": f"sk.eyJ{some(60)}.{some(22)}",
    "hubspot": "pat-na1-01234567-89ab-cdef-0123-456789abcdef",
    "volcano engine": "AKLT" + some(43),
    "jwt": f"eyJ{some(20)}.{some(30)}.{some(40)}",
}
SENTENCES = ("{}", "key: {}", "using {} for the upload", 'os.environ["X"] = "{}"', "--hub {} --steps 3")


@pytest.mark.parametrize("service", KEYS)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_key_of_a_service_goes_wherever_it_is(service, sentence):
    said = redact_text(sentence.format(KEYS[service]))
    assert KEYS[service] not in said
    assert MARK in said


ASSIGNED = [
    f'"private_key": "{PEM}"',
    f"private_key: {PEM}",
    "https://TOKENabc123@github.com/x/y.git",
    "mysql://root:p@ss/w0rd@db.local:3306/x",
    "postgres://me:hunter22@h/x",
    "Authorization: Basic dXNlcjpodW50ZXIy",
    "authorization: Bearer abcd1234efgh",
    '{"Authorization": "token abcdef12"}',
    "Cookie: session=hunter22; theme=dark",
    "Set-Cookie: sid=hunter22",
    "X-Api-Key: hunter22",
    "train --password hunter22 --lr 1e-4",
    "login --token hunter22",
    "curl -u bob:hunter22 https://h/x",
    "curl -s --user bob:hunter22 https://h/x",
    "MYSQL_PWD=hunter22",
    "DB_PASS=hunter22",
    "passphrase=hunter22",
    "pass=hunter22",
    "SECRET_KEY=hunter22",
    "django_secret_key: hunter22",
    "AccountKey=hunter22hunter22==;EndpointSuffix=core",
    "https://x.blob.core.windows.net/c?sv=1&sig=hunter22hunter22",
    "https://b.s3.amazonaws.com/k?X-Amz-Signature=hunter22hunter22",
    "https://hooks.slack.com/services/T0hunter22/B0hunter22/hunter22hunter22",
    "https://discord.com/api/webhooks/123456789012345678/hunter22hunter22hunter22",
    "mysql -u root -phunter22 db",
    "sshpass -p hunter22 ssh node1",
    "SSHPASS=hunter22",
    "machine api.wandb.ai login user password hunter22",
    "wandb login hunter22",
    "requirepass hunter22",
    "kaggle_key: hunter22",
    '{"username":"me","key":"hunter22"}',
    "密码：hunter22",
    "пароль: hunter22",
    "| api_key | hunter22hunter22 |",
    "Using API key: hunter22hunter22",
    "PuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 1\nMIIabc\nPrivate-MAC: 00",
    "https://oapi.dingtalk.com/robot/send?access_token=" + "ab12" * 16,
]


@pytest.mark.parametrize("text", ASSIGNED)
def test_what_is_given_as_a_secret_goes(text):
    said = redact_text(text)
    for secret in (
        "MIIabc",
        "TOKENabc123",
        "ss/w0rd",
        "hunter22",
        "dXNlcjpodW50ZXIy",
        "abcd1234efgh",
        "abcdef12",
        "ab12ab12",
    ):
        assert secret not in said
    assert MARK in said


HARMLESS = [
    "{'loss': 1.2, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.1}",
    "forward pass: 12.3 ms, backward pass: 20.1 ms",
    "pass=1 of 3",
    "PWD=/root/run",
    "tokens per second: 12345678901234567",
    "max_new_tokens: 512",
    "--max-new-tokens 16 --use_auth_token False",
    "special_token_id = 151643",
    "pip install git+https://github.com/x/y@v1.0",
    "git clone git@github.com:x/y.git",
    "see https://huggingface.co/org/model/tree/main and https://medium.com/@user/post",
    "http://localhost:8080/v1/@models",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "sk-learn and key-value stores; secret_santa",
    "eos_token: <|im_end|>",
    "tokenizer_config.json, token_type_ids",
    "HF_TOKEN=$HF_TOKEN accelerate launch",
    "api_key: null",
    "token by token: tests build the rows",
    "single-token answers.** Same deterministic model; the 1-pass rule",
    "500-token inputs | 200k-token inputs | generated token: <|im_end|>",
    "def get(self, token: str, has_new_token: bool) -> dict:",
    "model.save(token=self.token, use_auth_token=None)",
    "ref: https://github.com/huggingface/transformers/blob/fc37f38915372c15992b540dfcbbe00a916d4fc6/x.py",
    "The token to use as HTTP bearer authorization for remote files.",
    "the password is not set; no api key found",
    "令牌: 2048",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_words_that_only_look_like_secrets_stay(text):
    assert redact_text(text) == text


def test_what_is_masked_stays_masked():
    for text in (*ASSIGNED, *KEYS.values()):
        assert redact_text(redact_text(text)) == redact_text(text)
