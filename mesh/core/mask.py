"""Secrets in text that people will read: masked before it leaves the process. Linear in the length of the text.

The one redaction of the mesh: errors, logs, stacks of dead letters, spans and settings all go through it. What is
masked is what a name, a header or a URL says is secret, and what has the shape of a known kind of key.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

HIDDEN: Final = "***"

_NAME: Final = (
    r"pass(?:word|wd|phrase|code)s?|\bpwd(?=\s?=\s?[^\s/])|secrets?|credentials?|client[_-]?secret"
    r"|(?<!budget_)token(?:(?!s)|s(?![\"']?\s{0,8}[=:]\s{0,8}\d))s?"
    r"|api[_-]?keys?|(?:access|account|auth|encryption|license|master|private|secret|shared|signing|storage)"
    r"[_-]?(?:access[_-]?)?keys?|shared[_-]?access[_-]?signature"
)
_WORDS: Final = (
    r"(?!(?:str|bytes|int|string|SecretStr|None|null|nil|true|false|Field|Input|Value|String|Extra|is|was|are|must|should"
    r"|not|no|missing|required|expected|got|and|or|for)\b)"
)
"""What follows a name where no secret does: kinds of values, and the beginnings of sentences about one."""
_SCHEMES: Final = r"(?:bearer|basic|digest|token|apikey|api-key|negotiate|ntlm|oauth|aws4-hmac-sha256|hmac)"
_VALUE: Final = (
    r"(?:\\\"(?:(?!\\\").)*(?:\\\")?"  # in JSON in JSON
    r"|\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
    rf"|(?:{_SCHEMES}\s{{1,8}})?[^\s,;&)}}\]\"']{{0,4096}}[^\s,;&)}}\]\"'.])"
)
_NAMED = re.compile(rf"(?i)((?:{_NAME})(?:\\?[\"'])?\s{{0,8}}(?:=(?!=)|:(?!:))\s{{0,8}}){_WORDS}{_VALUE}")
_FLAG = re.compile(rf"(?i)((?<!\S)--?(?:[a-z]{{1,20}}-){{0,3}}(?:{_NAME})\s{{1,8}})(?!-){_WORDS}[^\s\"']+")
_HEADER = re.compile(
    rf"(?i)(authorization(?:\\?[\"'])?\s{{0,8}}[:=]\s{{0,8}}(?:\\?[\"'])?(?:{_SCHEMES}\s{{1,8}}|(?=[^\s\"']{{16}})))[^\s\"',;]+"
)
_COOKIE = re.compile(r"(?i)(\b(?:set-)?cookie(?:\\?[\"'])?: {0,8}(?:\\?[\"'])?)[^\s\"';]+(?:; [^\s\"';]+){0,64}")
_BEARER = re.compile(
    r"(?i:\b(bearer|basic))\s{1,8}(?=[^\s]{0,512}[0-9=]|[A-Za-z]{0,512}[a-z][A-Z])[A-Za-z0-9._~+/=-]{8,}"
)
_PORT: Final = r"(?!\d{1,5}(?:[/?#\s]|$))"
_URL = re.compile(
    rf"(?i)\b([a-z][a-z0-9+.-]{{0,30}}:(?://[^\s/:@\[]{{0,256}}|[^\s/:@\[]{{1,256}}):){_PORT}[^\s\"'<>]{{1,256}}@"
)
_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)(?=[^\s/:@]{0,256}\d)[^\s/:@]{20,256}@")
_QUERY = re.compile(
    r"(?i)([?&](?:sig|signature|key|x-(?:amz|goog)-(?:signature|credential|security-token))=)[^&\s\"'#]{16,}"
)
_SIGNATURE = re.compile(r"(?i)(\bsignature=)[0-9a-f]{32,}")
_SHAPES = re.compile(
    r"\bsk-[A-Za-z0-9_-]{12,}|\b[spr]k_(?:live|test)_[A-Za-z0-9]{8,}|\bgh[pousr]_[A-Za-z0-9]{12,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{12,}|\bgl(?:pat|dt|rt|ft|cbt|ptt|imt|soat|agent)-[A-Za-z0-9_-]{12,}"
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{32,}|\bdckr_pat_[A-Za-z0-9_-]{16,}|\bdop_v1_[0-9a-f]{32,}"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{12,}|hooks\.slack\.com/services/[A-Za-z0-9/]+"
    r"|\bhf_[A-Za-z0-9]{16,}|\b(?:gsk|r8)_[A-Za-z0-9]{20,}|\b(?:xai|nvapi|tvly|pplx)-[A-Za-z0-9_-]{20,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{20,}|\bGOCSPX-[A-Za-z0-9_-]{16,}"
    r"|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|\bshp(?:at|ca|pa|ss)_[0-9A-Fa-f]{20,}"
    r"|\bhv[sbr]\.[A-Za-z0-9_-]{20,}|\bwhsec_[A-Za-z0-9+/=]{16,}|\bAGE-SECRET-KEY-1[0-9A-Z]{20,}"
    r"|\b\d{8,10}:AA[A-Za-z0-9_-]{32,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
)
_PEM = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----).*?"
    r"(-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAME})$")


def masked(text: str) -> str:
    """`text` with what looks like a secret replaced by `***`."""
    text = _PEM.sub(r"\1***\2", text)
    if "@" in text:
        text = _URL.sub(r"\1***@", text)
        text = _USER.sub(r"\1***@", text)
    text = _HEADER.sub(r"\1***", text)
    text = _COOKIE.sub(r"\1***", text)
    text = _NAMED.sub(r"\1***", text)
    text = _FLAG.sub(r"\1***", text)
    text = _BEARER.sub(r"\1 ***", text)
    text = _QUERY.sub(r"\1***", text)
    text = _SIGNATURE.sub(r"\1***", text)
    return _SHAPES.sub(HIDDEN, text)


def masked_address(url: str) -> str:
    """The address of a log or a board, without its password whatever signs that has."""
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" or "@" not in rest:
        return masked(url)
    slashes = "//" if rest.startswith("//") else ""
    secret, _, host = rest[len(slashes) :].rpartition("@")
    user, named, _ = secret.partition(":")
    return f"{scheme}{colon}{slashes}{user if named else ''}{named}{HIDDEN}@{masked(host)}"


def masked_value(name: str, value: Any) -> Any:
    """A field for people: texts are masked, also those inside; all of it where its name says that it is secret."""
    if isinstance(value, str):
        return HIDDEN if value and _SECRET_NAME.search(name) else masked(value)
    if isinstance(value, Mapping):
        return {key: masked_value(str(key), inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [masked_value(name, inner) for inner in value]
    return value
