"""Takes secrets out of everything that a report shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MARK = "[redacted]"

# A word of its own in the key, so that tokenizer and max_new_tokens pass. `token` counts only at its end:
# token_accuracy and moe_token_dispatcher_type are about tokens of text.
_SECRET_KEY = re.compile(
    r"(?:^|[^a-z])"
    r"(?:token(?:[^a-z]*(?:value|string|secret|key|id|\d+))?$"
    r"|(?:secret|password|passwd|pwd|api_?key|access_?key|private_?key|credentials?|auth)(?:$|[^a-z]))"
)
_HARMLESS_KEY = re.compile(
    r"^(?:(?:bos|eos|pad|unk|cls|sep|mask|image|video|audio|stop|special|add|skip|split|new|resize)_.*|.*_token_ids?)$"
)
_NAMES = (
    r"token|secret|password|passwd|passphrase|passcode|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|(?:secret|account|encryption|signing|auth|license|master|storage|shared[_-]?access|kaggle)[_-]?key"
    r"|credentials?"
    r"|connection[_-]?string|webhook[_-]?url"
)
_NAMED = re.compile(r"(?i)token|secret|passw|passphrase|passcode|key|credential|connection|webhook")
"""Without one of these there is nothing to look for with the two slow patterns."""
_ASSIGNED = re.compile(
    rf"(?i)((?:^|[^a-z])[\w-]*(?:{_NAMES})"
    r"[\"']?\s*(?:=|:\s|:(?=[\"'])|\s(?=[^\s=:]{16,}))\s*[\"']?)([^\s\"',;&}\]]{4,})"
)
# A name, blanks or the lines of a table, and a word of letters and digits, as keys and passwords are.
_BESIDE = re.compile(
    r"(?i)(\b(?:(?:using |the |my )?(?:api[ _-]?key|password|passwd|secret|secret_key|access_key|token)"
    r"(?: is)?)(?:\s*[|│:]\s*|\s+))((?=[a-z_-]*\d)(?=[\d_-]*[a-z])[a-z0-9_-]{10,})(?![\w.|])"
)
# Other languages' words for them, and their signs for "is".
_SAID = re.compile(
    r"(?i)((?:密码|密钥|秘钥|口令|令牌|パスワード|비밀번호|пароль|passwort|kennwort|mot de passe|contraseña"
    r"|senha)"
    r"[\"']?\s*[:：=＝]\s*[\"']?)([^\s\"',;&}\]，。；]{4,})"
)
# Commands that take a password or a key without a name.
_GIVEN = re.compile(
    r"(\b(?:mysql|mysqldump|mysqladmin|mariadb)\b[^\n]{0,200}?\s-p|\bsshpass\s+-p\s*"
    r"|\b(?:wandb|swanlab)\s+login\s+(?:-\S+\s+)*|\blogin\s+\S+\s+password\s+|\b(?:bindpw|requirepass|masterauth)\s+"
    r"|\"username\"\s*:\s*\"[^\"]*\"\s*,\s*\"key\"\s*:\s*\")([^\s\"'-][^\s\"']{3,})"
)
# Short names that are words of logs as well: only as a variable, `DB_PASS=...`, or a command's argument.
_VARIABLE = re.compile(
    r"((?<![A-Za-z])(?!(?:OLD)?PWD\b)(?:[A-Za-z_]\w*_)?(?i:pass|sshpass|pwd|pat|dsn|sig)\s?=\s?[\"']?)([^\s\"',;&}\]]{4,})"
)
_ARGUMENT = re.compile(
    r"((?<![\w-])--?(?:[\w-]*[-_])?(?i:token|password|passwd|pass|secret|api[-_]?key|pat|passphrase|pwd)(?:=|\s+)[\"']?)"
    r"([^\s\"'-][^\s\"']*)"
)
_CURL_USER = re.compile(
    r"(\b(?:curl|wget)\b[^\n]{0,400}?\s(?:-u|--user|--proxy-user)[\s=]+[\"']?)([^\s\"']+)"
)
_HEADER = re.compile(
    r"(?i)(\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?"
    r"(?:(?:basic|bearer|token|digest|apikey|key|negotiate)\s+)?)([^\s\"',;}]{4,}(?:=*))"
    r"|(\b(?:set-)?cookie[\"']?\s*:\s*[\"']?)([^\n\"']{4,})"
    r"|(\bx-[\w-]*(?:key|token|secret)[\"']?\s*:\s*[\"']?)([^\s\"',]{4,})"
)
# A path may hold an @. What precedes it is a user only before the first slash, or after a colon that no port
# follows. `git@` is no secret.
_URL_USER = re.compile(
    r"(?<=://)(?!git@)(?:[^/\s@:\"'<>]+|[^/\s@:\"'<>]*:(?!\d{1,5}[/?#\s])[^\s\"'<>]*)(?=@[\w.\[-])"
)
_SIGNED = re.compile(
    r"(?i)([?&;](?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature|token|key|code"
    r"|access_token)=)([^&\s\"'<>]{8,})"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*(?:PRIVATE KEY|PRIVATE KEY BLOCK|CERTIFICATE)-----[\s\S]*?"
    r"(?:-----END [A-Z0-9 ]*-----|\Z)|PuTTY-User-Key-File-\d[\s\S]*?(?:Private-MAC:[^\n]*|\Z)"
)
# What the keys of the most used services look like. Bounded only by letters and digits: a key may be part
# of a name, as in set_ghp_....
_SERVICES = (
    r"hf_[A-Za-z0-9]{16,}", r"api_org_[A-Za-z0-9]{20,}", r"sk-[A-Za-z0-9_-]{16,}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}", r"whsec_[A-Za-z0-9+/]{16,}",
    r"gh[pousr]_[A-Za-z0-9]{20,}", r"github_pat_[A-Za-z0-9_]{20,}",
    r"gl(?:pat|dt|rt|ptt|cbt|agent|soat|ft|imt)-[A-Za-z0-9_-]{16,}", r"A(?:KIA|SIA|BIA|CCA)[0-9A-Z]{16}",
    r"AIza[0-9A-Za-z_-]{35}", r"ya29\.[0-9A-Za-z_-]{20,}", r"GOCSPX-[A-Za-z0-9_-]{20,}",
    r"xox[abeprs]-[A-Za-z0-9-]{10,}", r"xapp-\d-[A-Za-z0-9-]{10,}", r"wandb_v\d+_[A-Za-z0-9_-]{16,}",
    r"ms-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", r"gsk_[A-Za-z0-9]{20,}",
    r"npm_[A-Za-z0-9]{20,}", r"pypi-[A-Za-z0-9_-]{16,}", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"r8_[A-Za-z0-9]{20,}", r"key-[0-9a-f]{32}", r"(?:SK|AC)[0-9a-f]{32}", r"do[oprt]_v1_[0-9a-f]{32,}",
    r"shp(?:at|ss|ca|pa|tka)_[0-9a-fA-F]{32}", r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{20,}",
    r"EAA[A-Za-z0-9]{40,}", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}", r"ntn_[A-Za-z0-9]{40,}",
    r"secret_[A-Za-z0-9]{40,}", r"figd_[A-Za-z0-9_-]{20,}", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}",
    r"hv[sbr]\.[A-Za-z0-9_-]{20,}", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{40,}",
    r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}", r"rubygems_[0-9a-f]{40,}", r"oy2[a-z0-9]{43}",
    r"PMAK-[0-9a-f]{20,}-[0-9a-f]{20,}", r"NR(?:AK|II|JS)-[A-Za-z0-9_-]{20,}",
    r"gl(?:c|sa)_[A-Za-z0-9+/=_]{20,}", r"sntry[su]_[A-Za-z0-9+/=_]{20,}",
    r"dt0[a-z]\d\d\.[A-Z0-9]{20,}\.[A-Z0-9]{40,}", r"fo1_[A-Za-z0-9_-]{30,}",
    r"tskey-[a-z]+-[A-Za-z0-9-]{10,}", r"xkeysib-[0-9a-f]{32,}[A-Za-z0-9-]*", r"nvapi-[A-Za-z0-9_-]{20,}",
    r"pplx-[A-Za-z0-9]{20,}", r"fw_[A-Za-z0-9]{20,}", r"tgp_v1_[A-Za-z0-9_-]{20,}", r"xai-[A-Za-z0-9]{20,}",
    r"AKID[A-Za-z0-9]{28,}", r"LTAI[A-Za-z0-9]{12,24}", r"sl\.[A-Za-z0-9_-]{60,}",
    r"ops_eyJ[A-Za-z0-9_-]{20,}", r"AGE-SECRET-KEY-1[A-Z0-9]{40,}", r"HRKU-[A-Za-z0-9_-]{20,}",
    r"dapi[0-9a-f]{32}(?:-\d)?", r"AT[AC]TT3[A-Za-z0-9_=-]{20,}", r"AKC[A-Za-z0-9]{30,}",
    r"lsv2_(?:pt|sk)_[0-9a-f_]{20,}", r"pcsk_[A-Za-z0-9_]{20,}", r"jina_[A-Za-z0-9]{20,}",
    r"tvly-[A-Za-z0-9-]{16,}", r"sbp_[0-9a-f]{40}", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{20,}",
    r"rpa_[A-Z0-9]{30,}", r"vercel_[A-Za-z0-9]{20,}", r"cfut_[A-Za-z0-9_-]{20,}",
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9.]{40,}",
    r"v1\.0-[0-9a-f]{24}-[0-9a-f]{100,}", r"cflt[A-Za-z0-9+/]{50,}", r"sk_[0-9a-f]{40,}",
    r"esecret_[a-z0-9]{20,}",
    r"ATBB[A-Za-z0-9]{24,}", r"[ps]k\.eyJ[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{20,}",
    r"pat-(?:na|eu)\d-[0-9a-f-]{36}", r"SCW[A-Z0-9]{17}", r"AQVN[A-Za-z0-9_-]{35,}",
    r"AKLT[A-Za-z0-9+/=_-]{40,}",
    r"\d/\d{16}:[0-9a-f]{32}",
)  # fmt: skip
_BY_SERVICE = [
    # Most texts hold none of the words that keys begin with, and `in` is far faster than a pattern.
    (re.split(r"[\\[(]", service)[0], re.compile(rf"(?<![A-Za-z0-9])(?:{service})(?![A-Za-z0-9])"))
    for service in _SERVICES
]
_PATTERNS = [
    re.compile(r"(?<=hooks\.slack\.com/)(?:services|workflows)/[A-Za-z0-9/_-]{16,}"),
    re.compile(r"(?:(?<=discord\.com/api/webhooks/)|(?<=discordapp\.com/api/webhooks/))[\w/-]{20,}"),
    re.compile(r"(?<=webhook\.office\.com/)[\w/@.-]{20,}"),
    re.compile(r"(?<=/robot/send\?access_token=)[0-9a-f]{20,}|(?<=/bot/v2/hook/)[0-9a-f-]{20,}"),
    re.compile(r"(?i)(?<=bearer )(?=[a-z._~+/-]*\d|\S{24})[A-Za-z0-9._~+/-]{12,}=*"),
]
# W&B keys are 40 hexadecimal digits, and so are git commits: only those that a line calls a commit stay.
_FORTY_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
_IS_HASH = re.compile(r"(?i)commit|revision|sha|hash|git|snapshots/|digest|/(?:blob|tree|resolve|raw)/")


# Values of settings that are named like a secret, and a shell's own variable.
_WORD = re.compile(r"[A-Za-z_]{2,12}[.)]*")
"""No token: machines make them, of more than the letters of a word."""
_NO_SECRET = re.compile(
    r"(?i)null|none|true|false|yes|no|auto|self\.\w+|os\.environ\W.*|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\[redacted.*|\$\{?\w+\}?|<[^>]*>|\*+"
)


def redact(value: Any, key: str = "") -> Any:
    """A copy of nested mappings, lists and texts with every secret replaced by `[redacted]`.

    A text goes whole where its key says that it is a secret; elsewhere only what looks like one does.

    >>> redact({"hub_token": "hf_abc", "max_new_tokens": 16, "url": "http://me:pw@host/x"})
    {'hub_token': '[redacted]', 'max_new_tokens': 16, 'url': 'http://[redacted]@host/x'}
    """
    if isinstance(value, Mapping):
        return {name: redact(entry, str(name)) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(entry, key) for entry in value]
    if not isinstance(value, str) or not value:
        return value
    return MARK if _is_secret_key(key) else redact_text(value, key)


def redact_text(text: str, key: str = "") -> str:
    """`text` without what looks like a secret; `key` names what the text is, for git hashes.

    >>> redact_text("WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567 llamafactory-cli train")
    'WANDB_API_KEY=[redacted] llamafactory-cli train'
    """
    # Whole blocks and headers first: what names one of their lines would else be masked alone.
    text = _PEM.sub(MARK, text)
    text = _HEADER.sub(_header, text)
    text = _URL_USER.sub(MARK, text)
    text = _SIGNED.sub(rf"\1{MARK}", text)
    text = _CURL_USER.sub(rf"\1{MARK}", text)
    named = (_ASSIGNED, _BESIDE) if _NAMED.search(text) else ()
    for pattern in (*named, _VARIABLE, _ARGUMENT, _SAID, _GIVEN):
        text = pattern.sub(_assigned, text)
    for begins, pattern in _BY_SERVICE:
        if begins in text:
            text = pattern.sub(MARK, text)
    for pattern in _PATTERNS:
        text = pattern.sub(MARK, text)
    if not _IS_HASH.search(key):
        text = _FORTY_HEX.sub(_unless_hash, text)
    return text


def _is_secret_key(key: str) -> bool:
    lower = key.lower()
    return bool(_SECRET_KEY.search(lower)) and not _HARMLESS_KEY.match(lower)


def _header(match: re.Match[str]) -> str:
    return (match[1] or match[3] or match[5]) + MARK


def _assigned(match: re.Match[str]) -> str:
    name = re.split(r"[\s\"'=:,{(]+", match[1].strip(" \"'=:"))[-1].lower().lstrip("-")
    if _HARMLESS_KEY.match(name.replace("-", "_")) or _NO_SECRET.fullmatch(match[2].rstrip(").")):
        return match[0]
    if name.endswith("token") and "=" not in match[1] and _WORD.fullmatch(match[2]):
        return match[0]
    return match[1] + MARK


def _unless_hash(match: re.Match[str]) -> str:
    before = match.string[: match.start()].rsplit("\n", 1)[-1][-40:]
    return match[0] if _IS_HASH.search(before) else MARK
