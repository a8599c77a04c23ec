"""The formats of secrets that the redaction knows, as one table of rows.

Rows of NAMED describe the context of a secret: behind a name, in a header, in a URL. Rows of SHAPES describe the keys
of one issuer. A row is searched only where the text contains one of its hints, in lower case; so every match contains
one. Each pattern is linear in the length of the text: its repetitions are bounded, or consume what they scanned.
"""

import re
from typing import Final, NamedTuple

HIDDEN: Final = "***"


class Format(NamedTuple):
    """One format. `shown` replaces a match; it may repeat groups of `pattern` that are not secret."""

    name: str
    hints: tuple[str, ...]
    pattern: str
    shown: str


_KEY_KINDS: Final = (
    "a(?:ccess|ccount|pp|uth)|cipher|deploy|encryption|functions|hmac|jwt|license|master|private"
    "|s(?:ecret|ervice|ession|hared|igning|sh|torage|ubscription)|webhook"
)
_NAME: Final = (
    r"(?=[acdefhjlmpstw_])(?:pass(?:word|wd|phrase|code)s?|(?<=[_.])pass|(?-i:(?<=[a-z])(?<!by)Pass)"
    r"|(?<![\w-])pass(?=[\"']\s?[:=]|[=:](?!\s|\d+(?!\w)))"
    r"|(?:(?<=_)|(?-i:(?<=[a-z])(?=P))|(?<=user))pwd|(?<=bind|root|user)pw|(?<![a-z])psk|sess(?:ion)?id|\bpwd(?=[\"']?\s?[=:]\s?[\"'{]?[^\s/\"'{])"
    r"|secrets?|credentials?|(?<!budget_)token(?:(?!s)|s(?![\"']?\s{0,8}[=:]\s{0,8}\d))s?|(?<![a-z0-9])_auth"
    rf"|(?:api|access|secret|encryption)[ ]keys?|api[_-]?keys?|(?:{_KEY_KINDS})[_-]?(?:access[_-]?)?keys?"
    r"|shared[_-]?access[_-]?signature)(?:_?\d{1,2}|[_-](?:base|hash|new|old|pem|prev|previous|value))?"
)
"""The lookahead at the start only saves time: most characters begin no name."""
_NAME_HINTS: Final = ("pass", "pw", "psk", "secret", "credential", "token", "key", "signature", "sess", "_auth")
_WORDS: Final = (
    r"(?!(?:str|bytes|int|string|SecretStr|Optional|None|null|nil|true|false|Field|Input|Value|String|Extra|is|was|are"
    r"|must|should|not|no|missing|required|expected|got|and|or|for|the|a|an|invalid|wrong|incorrect|expired|unset|empty)"
    r"(?![\w@!#$%^&*+-]))"
)
"""Words behind a name that are not a secret: kinds of values, and beginnings of sentences about one."""
_NO_VALUE: Final = (
    r"(?:at|as|in|on|to|from|of|by|for|with|not|no|the|a|an|too|only|still|now|never|always|probably|also|both|empty|null"
    r"|none|unset|set|invalid|valid|wrong|correct|incorrect|right|bad|good|weak|strong|short|long|unknown|known|secret"
    r"|safe|unsafe|mandatory|optional|present|absent|public|private|here|there|it|so|that|this|true|false|old|new|due"
    r"|blank|gone|lost|kept|sent|held|read|written|shown|hidden|stale|fresh|unique|default|same|equal|different"
    r"|out|over|ok|fine|ready|reset|up|down|off|available|unavailable|unusable|undefined|[a-z-]+(?:ed|ing))"
)
"""Words behind `password is` in a sentence that describes a password without containing it."""
_SCHEMES: Final = r"(?:bearer|basic|digest|token|apikey|api-key|negotiate|ntlm|oauth|aws4-hmac-sha256|hmac)"
_TEXT: Final = r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
_QUOTED: Final = rf"(?:[bfru]{{1,2}}(?=[\"']))?(?:{_TEXT})"
_BRACKETS: Final = rf"[\[({{]\s{{0,8}}(?=[bfru]{{0,2}}[\"'])(?:{_TEXT}|[^\])}}\"'])*[\])}}]?"
"""A list or a table whose first item is quoted."""
_BARE: Final = r"[^\s,;&)}\]\"'<]{0,4096}[^\s,;&)}\]\"'.<]"
_GOES_ON: Final = r"[,)\]&<](?=\w)(?![\w-]{1,64}\s?[=:]|(?<=<)[\w:.-]{1,64}\s?/?>)"
"""A punctuation mark in an unquoted value, where neither another name nor a tag begins."""
_VALUE: Final = (
    r"(?:\\\"(?:(?!\\\").)*(?:\\\")?"  # in JSON in JSON
    rf"|{_QUOTED}|{_BRACKETS}|(?:{_SCHEMES}\s{{1,8}})?{_BARE}(?:{_GOES_ON}{_BARE})*)"
)
_MASKED: Final = r"(?!\*{3}(?!\w)|[|>][+-]?\d?[ \t]{0,8}\n|'[^\w']{0,3}'|\"[^\w\"]{0,3}\"|\d{1,2}(?:[\s,;)}\]&]|\.?$))"
"""Not a secret: a masked value, the beginning of a block of YAML, punctuation in quotes, small numbers."""
_SEPARATOR: Final = r"[ \t]{0,8}(?:=>|:=|=(?![=>])|:(?![:=])|%3[ad]|\\u003d)[ \t]{0,8}"
_ELEMENT: Final = rf"<(?:[\w.-]{{0,64}}:)?[\w.-]{{0,64}}(?:{_NAME})(?:\s[^<>]{{0,256}})?>\s{{0,8}}"
_PORT: Final = r"(?!\d{1,5}(?:[/?#\s]|$))"
_TYPE: Final = r"[a-z][\w.]{0,63}(?:\[[\w., |\[\]]{0,64}\])?(?:[ \t]?\|[ \t]?\w{1,32}){0,3}"
_PEM: Final = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

SECRET_NAME: Final = re.compile(rf"(?i)(?:{_NAME}|(?<![a-z])(?:pass|pwd)|authorization|cookies?)$")
"""Matches the name of a field whose text is a secret."""


def _row(name: str, hints: str, pattern: str, shown: str = rf"\1{HIDDEN}") -> Format:
    return Format(name, tuple(hints.split()), pattern, shown)


def _format(name: str, pattern: str) -> Format:
    return Format(name, _NAME_HINTS, pattern, rf"\1{HIDDEN}")


NAMED: Final = (
    _row("key in PEM", "-----begin", rf"(?s)(-----BEGIN {_PEM}).*?(-----END {_PEM}|\Z)", rf"\1{HIDDEN}\2"),
    _row(
        "password in a URL",
        "@",
        rf"(?i)\b(?!mailto:)([a-z][a-z0-9+.-]{{0,30}}:(?://[^\s/:@\[]{{0,256}}|[^\s/:@\[]{{1,256}}):){_PORT}[^\s\"'<>]{{1,256}}@",
        rf"\1{HIDDEN}@",
    ),
    _row(
        "key as user in a URL",
        "@",
        r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)(?=[^\s/:@]{0,256}\d)[^\s/:@]{20,256}@",
        rf"\1{HIDDEN}@",
    ),
    _row(
        "header Authorization",
        "authorization",
        rf"(?i)(authorization(?:\\?[\"'])?\s{{0,8}}[:=]\s{{0,8}}(?:\\?[\"'])?(?:{_SCHEMES}\s{{1,8}}|(?=[^\s\"']{{16}})))"
        r"[^\s\"',;]+",
    ),
    _row(
        "cookie",
        "cookie",
        r"(?i)(\b(?:set-)?cookie(?:\\?[\"'])?: {0,8}(?:\\?[\"'])?)[^\s\"';]+(?:; [^\s\"';]+){0,64}",
    ),
    _row("line of YAML with pass", "pass:", r"(?m)(^[ \t]{0,64}(?:- )?pass:[ \t]{1,8})[^\s]+$"),
    _row("braces of ODBC", "pwd password", r"(?i)(\b(?:pwd|password)\s?=\s?)\{(?:[^}]|\}\})*\}?"),
    _row(
        "block of YAML",
        "| >",
        rf"(?i)((?:{_NAME})[\"']?[ \t]{{0,8}}:[ \t]{{0,8}}[|>][+-]?\d?[ \t]{{0,8}}\n)([ \t]+)[^\n]*(?:\n\2[^\n]*)*",
        rf"\1\2{HIDDEN}",
    ),
    _format("element of XML", rf"(?i)({_ELEMENT})[^<]+"),
    _format(
        "section CDATA in XML",
        rf"(?is)({_ELEMENT}<!\[CDATA\[)(?:(?!\]\]>).)+",
    ),
    _format(
        "pair of a name and a value",
        rf"(?i)(\b(?:name|key)[\"']?\s?[:=]\s?[\"']?[\w.:-]{{0,64}}?(?:{_NAME})[\"']?[\s,]{{1,32}}[\"']?value[\"']?"
        rf"\s?[:=]\s?){_WORDS}{_VALUE}",
    ),
    _format(
        "line of YAML",
        rf"(?im)(^[ \t]{{0,64}}(?:- )?[\"']?[\w.-]{{0,64}}(?:{_NAME})[\"']?:[ \t]{{1,8}}){_WORDS}(?![\"'|>])"
        r"[^\s,;=&]+(?: [^\s,;=&]+){1,16}[ \t]{0,8}$",
    ),
    _format(
        "element of XML with a value", rf"(?i)(<[\w.:-]{{0,64}}(?:{_NAME})\s(?:[^<>]{{0,128}}\s)?value=)(?:{_TEXT})"
    ),
    _row(
        "pair in brackets",
        " ".join((*_NAME_HINTS, "authorization", "cookie")),
        rf"(?i)([\[(]b?[\"'][\w.-]{{0,64}}(?:{_NAME}|authorization|cookie)[\"'],\s{{0,8}}){_QUOTED}(?=\s?[\])]|\Z)",
    ),
    _format(
        "line of source",
        rf"(?i)((?:{_NAME})(?:[ \t]?:[ \t]?{_TYPE})?[ \t]{{0,8}}=[ \t]{{0,8}}"
        rf"(?:[a-z][\w.]{{0,63}}\(\s?(?:\w{{1,32}}=)?)?)"
        rf"(?=[bfru]{{0,2}}[\"']){_MASKED}{_QUOTED}",
    ),
    _format(
        "line below a name",
        rf"(?i)((?:{_NAME})[\"']?:[ \t]{{0,8}}\n[ \t]{{1,64}}){_MASKED}{_WORDS}(?![-#|>])\S+(?<!:)(?=\s*?(?:\n|\Z))",
    ),
    _format(
        "column of a table",
        rf"(?i)((?:{_NAME})[ ]{{0,64}}(?:\t|\|(?!\|))[ \t]{{0,64}}){_MASKED}(?=[^\s|]{{0,64}}[^a-z_\s|])[^\s|]+",
    ),
    _format("named value", rf"(?i)((?:{_NAME})(?:\\?[\"'])?{_SEPARATOR}){_MASKED}{_WORDS}{_VALUE}"),
    _format(
        "sentence",
        rf"(?i)(\b(?:password|passphrase|passcode|passwd|token|secret|api[ _-]?key)[ \t](?:is|was)[ \t]?:?[ \t])"
        rf"(?!{_NO_VALUE}(?![\w@!#$%^&*+-]))"
        rf"(?:{_QUOTED}|(?=[^\s,;]{{0,64}}[^\sA-Za-z,;.!?)-])(?!\d+(?:[.,]\d+)?[ \t][a-z])[^\s,;]+"
        r"|[A-Za-z]+(?=[.!?,;)]|\s*$|\s*\n))",
    ),
    _format("provided value", rf"(?i)((?:{_NAME})[ \t]provided:?[ \t]){_MASKED}{_WORDS}{_VALUE}"),
    _format(
        "refused value",
        rf"(?i)(\b(?:invalid|incorrect|wrong|bad|unknown|expired)[ \t](?:{_NAME})[ \t]\(?[\"']?)"
        r"(?=[^\s\"']{0,64}\d)(?=[^\s\"']{0,64}[a-z])[^\s\"',;)]{6,}",
    ),
    _row(
        "DSN of Go",
        "@tcp @udp @unix",
        r"(?i)((?<![\w.%+-])[\w.%+-]{1,64}:)[^\s\"']{1,256}(?=@(?:tcp6?|udp|unix)\()",
    ),
    _row(
        "pair auth",
        "auth",
        rf"(?i)(\bauth[\"']?\s?[=:]\s?[\[(]\s?b?(?:\"[^\"]{{0,256}}\"|'[^']{{0,256}}'),\s?){_QUOTED}",
    ),
    _format(
        "option of a command",
        rf"(?i)((?<!\S)--?(?:[a-z]{{1,20}}-){{0,3}}(?:{_NAME}|pass|(?:src|dest)?(?:store|key)pass)\s{{1,8}})(?!-){_WORDS}"
        r"[^\s\"']+",
    ),
    _row(
        "quoted behind the word",
        "password passwd identified",
        r"(?i)(\b(?:password|passwd|identified by)\s)(?:'[^'\n]+'?|\"[^\"\n]+\"?)",
    ),
    _row("option -u of curl", "curl", r"((?<!\S)-u[ \t]{0,8}[\"']?[^\s:\"']{1,128}:)[^\s\"']+"),
    _row(
        "option --user",
        "--user --proxy-user",
        r"((?<!\S)--(?:proxy-)?user[= \t][ \t]{0,8}[\"']?(?!\d{1,9}:\d)[^\s:\"']{1,128}:)[^\s\"']+",
    ),
    _row("option -p of mysql", "mysql mariadb sshpass", r"((?:mysql|mariadb|sshpass)[^\n]{0,256}? -p)[^\s\"']+"),
    _row("option -a of redis-cli", "redis-cli", r"(redis-cli[^\n]{0,256}? (?:-a|--pass) {1,8})[^\s\"']+"),
    _row("setting of Redis", "requirepass masterauth", r"(?i)(\b(?:requirepass|masterauth)\s{1,8}[\"']?)[^\s\"']+"),
    _row(
        "netrc",
        "machine default",
        r"(\b(?:machine\s{1,8}\S{1,256}|default)\s{1,8}(?:(?:login|account)\s{1,8}\S{1,256}\s{1,8}){1,2}password\s{1,8})\S+",
    ),
    _row(
        "netrc without a login",
        "machine",
        r"(\bmachine\s{1,8}\S{1,256}\s{1,8}password\s{1,8})(?!is\b|was\b)\S+",
    ),
    _row("auth of Docker", "auth", r"(\"auth\"\s{0,8}:\s{0,8}\")[A-Za-z0-9+/]{8,}={0,2}"),
    _row(
        "scheme and key",
        "bearer basic",
        r"(?i:\b(bearer|basic))\s{1,8}(?=[^\s]{0,512}[0-9=]|[A-Za-z]{0,512}[a-z][A-Z])[A-Za-z0-9._~+/=-]{8,}",
        rf"\1 {HIDDEN}",
    ),
    _row(
        "query of a URL",
        "sig= signature= key= signature= credential= token=",
        r"(?i)([?&](?:sig|signature|key|x-(?:amz|goog)-(?:signature|credential|security-token))=)[^&\s\"'#]{16,}",
    ),
    _row("signature", "signature=", r"(?i)(\bsignature=)[0-9a-f]{32,}"),
    _row("bot of Telegram in a URL", "/bot", r"(api\.telegram\.org/(?:file/)?bot)[^\s/\"'<>]+"),
    _row("webhook of Discord", "/webhooks/", r"(discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{1,20}/)[\w-]+"),
    _row("webhook of Slack", "hooks.slack.com", r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/-]+"),
    _row("webhook of Teams", "webhook.office.com", r"(webhook\.office\.com/webhookb2/)[\w/@-]+"),
    _row("webhook of Zapier", "hooks.zapier.com", r"(hooks\.zapier\.com/hooks/catch/)[\w/-]+"),
    _row(
        "secret behind the id of an AWS key",
        "akia asia",
        r"(\b(?:AKIA|ASIA)[0-9A-Z]{16}[\"']?[\s,:;/|]{1,8}[\"']?)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
    ),
)

_SHAPES: Final = (
    ("1Password", "ops_eyj a3-", r"ops_eyJ[\w+/=-]{32,}|A3-[A-Z0-9]{6}(?:-[A-Z0-9]{5,11}){4,5}"),
    ("Age", "age-secret-key-1", r"AGE-SECRET-KEY-1[0-9A-Z]{20,}"),
    ("Airtable", "pat", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    ("Alibaba", "ltai", r"LTAI[A-Za-z0-9]{16,}"),
    ("Amazon MWS", "amzn.mws.", r"amzn\.mws\.[0-9a-f-]{36}"),
    ("Atlassian", "atatt3 atctt3", r"AT[AC]TT3[\w=-]{30,}"),
    ("AWS", "akia asia", r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9])"),
    ("Azure", "q~", r"[\w~.-]{3}\dQ~[\w~.-]{31,34}"),
    ("Brevo", "xkeysib-", r"xkeysib-[0-9a-zA-Z-]{32,}"),
    ("Databricks", "dapi", r"dapi[0-9a-f]{32}"),
    ("DigitalOcean", "do", r"do[por]_v1_[0-9a-f]{32,}"),
    ("Discord", ".", r"[MNO](?=[A-Za-z_-]{0,27}\d)[A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}"),
    ("Docker", "dckr_pat_ dckr_oat_", r"dckr_[po]at_[\w-]{16,}"),
    ("Doppler", "dp.", r"dp\.(?:audit|ct|pt|sa|scim|st)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,}"),
    ("Dynatrace", "dt0c01.", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("Figma", "figd_", r"figd_[\w-]{20,}"),
    ("Fly", "fm1 fm2_ fo1_", r"f(?:m1[ar]_|m2_|o1_)[A-Za-z0-9+/=_-]{32,}"),
    ("GitHub", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"gh[pousr]_[A-Za-z0-9]{12,}|github_pat_[A-Za-z0-9_]{12,}"),
    ("GitLab", "gl", r"gl(?:pat|dt|rt|ft|cbt|ptt|imt|soat|agent|rtr|oas|ffct)-[\w.-]{12,}"),
    ("Google", "aiza ya29. gocspx-", r"AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{16,}"),
    ("Grafana", "glc_ glsa_", r"gl(?:c|sa)_[\w+/=]{20,}"),
    ("Groq and Replicate", "gsk_ r8_", r"(?:gsk|r8)_[A-Za-z0-9]{20,}"),
    ("Heroku", "hrku-", r"HRKU-[\w-]{30,}"),
    ("Hugging Face", "hf_ api_org_", r"(?:hf|api_org)_[A-Za-z0-9]{16,}"),
    ("JFrog", "akcp cmvmdgtu", r"(?:AKCp[A-Za-z0-9]{60,}|cmVmdGtu[A-Za-z0-9]{50,})"),
    ("JSON web token", "eyj", r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"),
    ("LangSmith", "lsv2_", r"lsv2_(?:pt|sk)_\w{32,}"),
    ("Linear", "lin_", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    ("Mailgun", "key-", r"key-[0-9a-f]{32}"),
    ("Meta and Square", "eaa sq0", r"EAA[A-Za-z0-9_-]{40,}|sq0[a-z]{3}-[\w-]{20,}"),
    ("New Relic", "nrak- nrii-", r"NR(?:AK|II)-[A-Za-z0-9-]{20,}"),
    ("Notion", "ntn_ secret_", r"(?:ntn|secret)_[A-Za-z0-9]{40,}"),
    ("npm", "npm_", r"npm_[A-Za-z0-9]{30,}"),
    ("OpenAI and Anthropic", "sk-", r"sk-(?!(?:[a-z]{1,12}-){1,8}[a-z]{1,12}(?![\w-]))[\w-]{12,}"),
    ("OpenShift", "sha256~", r"sha256~[\w-]{40,}"),
    ("Other models", "xai- nvapi- tvly- pplx-", r"(?:xai|nvapi|tvly|pplx)-[\w-]{20,}"),
    ("Pinecone", "pcsk_", r"pcsk_\w{32,}"),
    ("PlanetScale", "pscale_", r"pscale_(?:tkn|oauth|pw)_[\w.=-]{30,}"),
    ("PostHog", "phx_", r"phx_[A-Za-z0-9]{32,}"),
    ("Postman", "pmak-", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("Prefect", "pnu_ pnb_", r"pn[ub]_[A-Za-z0-9]{32,}"),
    ("Pulumi", "pul-", r"pul-[0-9a-f]{40}"),
    ("PyPI", "pypi-", r"pypi-[\w-]{32,}"),
    ("Resend", "re_", r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}"),
    ("RubyGems", "rubygems_", r"rubygems_[0-9a-f]{40,}"),
    ("SendGrid", "sg.", r"SG\.[\w-]{16,}\.[\w-]{16,}"),
    ("Sentry", "sntry", r"sntry[su]_[\w+/=-]{32,}"),
    ("Shippo and Duffel", "shippo_ duffel_", r"(?:shippo|duffel)_(?:live|test)_[\w=-]{32,}"),
    ("Shopify", "shp", r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{20,}"),
    ("Slack", "xox xapp-", r"xox[a-z][-.][\w.-]{10,}|xapp-[A-Za-z0-9-]{12,}"),
    ("Sourcegraph", "sgp_", r"sgp_(?:[0-9a-f]{16}_|local_)?[0-9a-f]{40}"),
    ("Stripe", "_live_ _test_ _prod_ whsec_", r"[spr]k_(?:live|test|prod)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{16,}"),
    ("Supabase", "sbp_ sb_secret_", r"sb(?:p|_secret)_[\w-]{30,}"),
    ("Telegram", ":a", r"\d{6,16}:A[\w-]{30,}"),
    ("Terraform", ".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{40,}"),
    ("Twilio", "sk", r"SK[0-9a-f]{32}"),
    ("Typeform", "tfp_", r"tfp_[\w.=-]{40,}"),
    ("Vault", "hvs. hvb. hvr.", r"hv[sbr]\.[\w-]{20,}"),
    ("Yandex", "aqvn", r"AQVN[\w-]{35,}"),
)


def _shape(issuer: str, hints: str, pattern: str) -> Format:
    """Make the format of an issuer. No letter or digit precedes a key, except in Telegram's URLs."""
    before = r"(?<!\d)" if issuer == "Telegram" else "(?<![A-Za-z0-9])"
    return Format(issuer, tuple(hints.split()), rf"{before}(?:{pattern})", HIDDEN)


SHAPES: Final = tuple(_shape(*row) for row in _SHAPES)
FORMATS: Final = NAMED + SHAPES
