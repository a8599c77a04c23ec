"""Secrets in text that people will read: masked before it leaves the process. Linear in the length of the text."""

import re

_NAMED = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|secret|(?<!budget_)token(?!s[\"']?\s{0,8}[=:]\s{0,8}\d)|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|credential)s?[\"']?\s{0,8}[=:]\s{0,8})"
    r"(?:(?!(?:bearer|basic)\s)[^\s,;&)}\]\"']+|\"[^\"]*\"?|'[^']*'?)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s{1,8}[A-Za-z0-9._~+/=-]{8,}")
_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,256}:)[^\s/@]+@")
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|ghu|ghs|ghr|github_pat|glpat|npm|xox[abeprs])[-_][A-Za-z0-9_-]{12,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
)
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]*(-----END [A-Z ]{0,40}PRIVATE KEY-----)?")


def masked(text: str) -> str:
    """`text` with what looks like a secret replaced by `***`."""
    text = _PEM.sub(r"\1***\2", text)
    text = _URL.sub(r"\1***@", text)
    text = _BEARER.sub(r"\1 ***", text)
    text = _NAMED.sub(r"\1***", text)
    return _SHAPES.sub("***", text)
