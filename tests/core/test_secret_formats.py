"""Each format finds its sample alone, and text without a secret is unchanged. No secret here is real."""

import re

import pytest

from mesh.core.redaction import mask
from mesh.core.secret_formats import FORMATS, HIDDEN, SHAPES

HEX = "0123456789abcdef" * 4
WORD = "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"
LONG = WORD * 3
UPPER = WORD.upper()
PW = "hunter2"

NAMED_SAMPLES = {
    "key in PEM": "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
    "password in a URL": "postgres://u:hunter2@h/db",
    "key as user in a URL": "https://0123456789abcdefhunter2@h.example/1",
    "header Authorization": "Authorization: Bearer hunter2",
    "cookie": "Cookie: session=hunter2",
    "line of YAML with pass": "smtp:\n  pass: hunter2\n",
    "braces of ODBC": "Driver={SQL};UID=sa;PWD={a;hunter2}}b};Encrypt=yes",
    "element of XML": '<wsse:Password Type="text">hunter2</wsse:Password>',
    "section CDATA in XML": "<db-password><![CDATA[<hunter2]]></db-password>",
    "pair of a name and a value": '{"name": "DB_PASSWORD", "value": "hunter2"}',
    "block of YAML": "a:\n  password: |-\n    x\n    hunter2\n  b: 1\n",
    "line of YAML": "password: correct hunter2 staple\n",
    "named value": "password=hunter2",
    "sentence": "the password is hunter2",
    "quoted behind the word": "ALTER USER u IDENTIFIED BY 'hunter2'",
    "option of a command": "mesh up --board-password hunter2",
    "option -u of curl": "curl -u user:hunter2 https://h",
    "option --user": "curl --user user:hunter2 https://h",
    "option -p of mysql": "mysql -h db -uroot -phunter2 shop",
    "option -a of redis-cli": "redis-cli -h h -a hunter2 ping",
    "setting of Redis": "requirepass hunter2",
    "netrc": "machine h login u password hunter2",
    "netrc without a login": "machine h password hunter2 login u",
    "auth of Docker": '{"auths": {"h": {"auth": "dTpodW50ZXIyhunter2"}}}',
    "scheme and key": "sent bearer abchunter2def",
    "query of a URL": "https://h/?sig=0123456789abcdefhunter2",
    "signature": f"signature={HEX}",
    "bot of Telegram in a URL": "https://api.telegram.org/bot123:hunter2/getMe",
    "webhook of Discord": "https://discord.com/api/webhooks/123/hunter2",
    "webhook of Slack": "https://hooks.slack.com/services/T1/B2/hunter2",
    "webhook of Teams": "https://x.webhook.office.com/webhookb2/a@b/IncomingWebhook/hunter2",
    "webhook of Zapier": "https://hooks.zapier.com/hooks/catch/1/hunter2",
    "secret behind the id of an AWS key": f"AKIAABCDEFGHIJKLMNOP, {WORD}/hunter2",
    "element of XML with a value": "<password value='hunter2'/>",
    "pair in brackets": "[('x-api-key', 'hunter2')]",
    "line of source": "token: str = 'hunter2'",
    "line below a name": "password:\n  hunter2\n",
    "column of a table": "| password | hunter2 |",
    "provided value": "Incorrect API key provided: hunter2",
    "refused value": "Invalid token hunter2",
    "DSN of Go": "root:hunter2@tcp(127.0.0.1:3306)/db",
    "pair auth": "auth=('user', 'hunter2')",
}
"""The name of a row → text with a secret `hunter2`, or with HEX."""

SHAPE_SAMPLES = {
    "1Password": [f"ops_eyJ{WORD}", "A3-ABC123-ABC123-ABC12-ABC12-ABC12-ABC12"],
    "Age": [f"AGE-SECRET-KEY-1{UPPER}"],
    "Airtable": [f"pat{WORD[:14]}.{HEX}"],
    "Alibaba": ["LTAI5tAbCdEfGhIjKlMnOp"],
    "Amazon MWS": ["amzn.mws.01234567-89ab-cdef-0123-456789abcdef"],
    "Atlassian": [f"ATATT3xFfGF0{WORD}", f"ATCTT3xFfGN0{WORD}"],
    "AWS": ["AKIAABCDEFGHIJKLMNOP", "ASIAABCDEFGHIJKLMNOP"],
    "Azure": [f"abc8Q~{WORD}"],
    "Brevo": [f"xkeysib-{HEX}-{WORD[:16]}"],
    "Databricks": [f"dapi{HEX[:32]}"],
    "DigitalOcean": [f"do{kind}_v1_{HEX}" for kind in "por"],
    "Discord": [f"M{WORD[:23]}.{WORD[:6]}.{WORD}"],
    "Docker": [f"dckr_pat_{WORD}", f"dckr_oat_{WORD}"],
    "Doppler": [f"dp.pt.{LONG}", f"dp.st.dev_main.{LONG}"],
    "Dynatrace": [f"dt0c01.{UPPER[:24]}.{UPPER}{UPPER}"],
    "Figma": [f"figd_{WORD}"],
    "Fly": [f"fm2_{WORD}", f"fo1_{WORD}", f"fm1r_{WORD}"],
    "GitHub": [*(f"gh{kind}_{WORD}" for kind in "pousr"), f"github_pat_{WORD}"],
    "GitLab": [f"{kind}-{WORD}" for kind in ("glpat", "gldt", "glrt", "glcbt", "glptt", "glsoat")],
    "Google": [f"AIza{WORD}abc", f"ya29.{WORD}", f"GOCSPX-{WORD}"],
    "Grafana": [f"glc_{WORD}", f"glsa_{WORD}_01234567"],
    "Groq and Replicate": [f"gsk_{WORD}", f"r8_{WORD}"],
    "Heroku": [f"HRKU-{WORD}"],
    "Hugging Face": [f"hf_{WORD}", f"api_org_{WORD}"],
    "JFrog": [f"AKCp{LONG}", f"cmVmdGtu{LONG}"],
    "JSON web token": [f"eyJhbGciOiJI.{WORD}.{WORD}", f"eyJhbGciOiJI.{WORD}", f"eyJhbGciOiJI.{WORD}."],
    "LangSmith": [f"lsv2_pt_{WORD}_0123456789", f"lsv2_sk_{WORD}"],
    "Linear": [f"lin_api_{WORD}", f"lin_oauth_{WORD}"],
    "Mailgun": [f"key-{HEX[:32]}"],
    "Meta and Square": [f"EAAB{LONG}", f"EAAA{LONG}", f"sq0atp-{WORD}", f"sq0csp-{WORD}"],
    "New Relic": [f"NRAK-{WORD[:27]}", f"NRII-{WORD}"],
    "Notion": [f"ntn_{LONG}", f"secret_{LONG}"],
    "npm": [f"npm_{WORD}"],
    "OpenAI and Anthropic": [f"sk-{WORD}", f"sk-proj-{WORD}", f"sk-ant-api03-{WORD}"],
    "OpenShift": [f"sha256~{LONG}"],
    "Other models": [f"{kind}-{WORD}" for kind in ("xai", "nvapi", "tvly", "pplx")],
    "Pinecone": [f"pcsk_{WORD}_{WORD}"],
    "PlanetScale": [f"pscale_{kind}_{WORD}" for kind in ("tkn", "oauth", "pw")],
    "PostHog": [f"phx_{WORD}"],
    "Postman": [f"PMAK-{HEX[:24]}-{HEX[:34]}"],
    "Prefect": [f"pnu_{WORD}", f"pnb_{WORD}"],
    "Pulumi": [f"pul-{HEX[:40]}"],
    "PyPI": [f"pypi-AgEI{WORD}"],
    "Resend": [f"re_AbCdEfGh_{WORD}"],
    "RubyGems": [f"rubygems_{HEX[:48]}"],
    "SendGrid": [f"SG.{WORD}.{WORD}"],
    "Sentry": [f"sntrys_{WORD}", f"sntryu_{HEX}"],
    "Shippo and Duffel": [f"shippo_live_{HEX}", f"duffel_test_{LONG}"],
    "Shopify": [f"shp{kind}_{HEX[:32]}" for kind in ("at", "ca", "pa", "ss")],
    "Slack": [f"xoxb-1234567890-{WORD}", f"xoxe.xoxp-1-{WORD}", f"xapp-1-A0123-{WORD}"],
    "Sourcegraph": [f"sgp_{HEX[:40]}", f"sgp_local_{HEX[:40]}", f"sgp_{HEX[:16]}_{HEX[:40]}"],
    "Stripe": [f"sk_live_{WORD}", f"rk_test_{WORD}", f"whsec_{WORD}"],
    "Supabase": [f"sbp_{HEX[:40]}", f"sb_secret_{WORD}"],
    "Telegram": [f"123456789:AA{WORD}", f"123456:AF{WORD}"],
    "Terraform": [f"{WORD[:14]}.atlasv1.{LONG}"],
    "Twilio": [f"SK{HEX[:32]}"],
    "Typeform": [f"tfp_{LONG}"],
    "Vault": [f"hv{kind}.{WORD}" for kind in "sbr"],
    "Yandex": [f"AQVN{WORD}abcdef"],
}


def test_each_row_has_a_sample() -> None:
    assert {*NAMED_SAMPLES, *SHAPE_SAMPLES} == {row.name for row in FORMATS}
    assert len({row.name for row in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_a_row_masks_its_sample_without_the_others(row: object) -> None:
    (found,) = [other for other in FORMATS if other is row]
    samples = [NAMED_SAMPLES[found.name]] if found.name in NAMED_SAMPLES else SHAPE_SAMPLES[found.name]
    for sample in samples:
        shown = re.sub(found.pattern, found.shown, sample)
        assert HIDDEN in shown
        assert PW not in shown
        assert HEX not in shown
        assert any(hint in sample.lower() for hint in found.hints)
        assert mask(mask(sample)) == mask(sample)


@pytest.mark.parametrize("sample", [sample for samples in SHAPE_SAMPLES.values() for sample in samples])
@pytest.mark.parametrize("around", ["{}", "with {} it fails", "'{}'", "x={}&y=1", "https://h/{}?x", "a_{}"])
def test_a_key_is_masked_whole_wherever_it_stands(around: str, sample: str) -> None:
    shown = mask(around.format(sample))
    assert shown.replace(HIDDEN, "", 1) == around.format("")


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: row.name)
def test_a_key_does_not_begin_in_a_word(row: object) -> None:
    (found,) = [other for other in SHAPES if other is row]
    sample = SHAPE_SAMPLES[found.name][0]
    before = "1" if found.name == "Telegram" else "x"
    assert re.match(found.pattern, sample)
    assert re.compile(found.pattern).match(before + sample, 1) is None


@pytest.mark.parametrize(
    "text",
    [
        # names
        "DB_PASS=hunter2",
        "db_pass: hunter2",
        "SMTP_PASS='hunter2'",
        "db.pass=hunter2",
        "dbPass=hunter2",
        "user=u pass=hunter2",
        "user:u pass:hunter2",
        '{"user": "u", "pass": "hunter2"}',
        "openssl -passin pass:hunter2",
        "keytool -storepass hunter2 -keypass hunter2",
        "MYSQL_PWD=hunter2",
        "MYSQL_PWD=/hunter2",
        "dbPwd=hunter2",
        "pwd: hunter2",
        '"pwd": "hunter2"',
        "CURLOPT_USERPWD=u:hunter2",
        "PGPASSWORD=hunter2 psql -h h",
        "password1=hunter2",
        "_auth=aHVudGVyMg==hunter2",
        "Ocp-Apim-Subscription-Key: hunter2",
        "consumer_secret=hunter2",
        # separators
        ':password => "hunter2"',
        ":password=>'hunter2'",
        "'password' => 'a hunter2',",
        'password := "hunter2"',
        "password:hunter2",
        "password = hunter2",
        # YAML
        "password: hunter2",
        'password: "a hunter2"',
        "password: 'a hunter2'",
        "db:\n  - password: correct horse hunter2\n    user: u",
        "password: >\n  hunter2\n",
        "password: |2\n   a\n\n",
        "env:\n- name: DB_PASSWORD\n  value: hunter2\n",
        "- name: API_TOKEN\n  value: 'a hunter2'\n",
        # XML
        "<password>hunter2</password>",
        "<Password>a hunter2",
        '<user password="hunter2"/>',
        '<add key="DbPassword" value="hunter2" />',
        "<clientSecret>hunter2</clientSecret>",
        # connection strings
        "DRIVER={ODBC};SERVER=h;UID=u;PWD={hunter2}",
        "Provider=x;User Id=u;Password={;hunter2};",
        # sentences
        "password is hunter2",
        "Your password is: hunter2",
        'the token is "hunter2"',
        "the api key is hunter2, keep it",
        "the secret was hunter2.",
        "CREATE ROLE u WITH LOGIN PASSWORD 'hunter2'",
        # commands
        "curl -s -u 'user:hunter2' https://h",
        "curl -uuser:hunter2 https://h",
        "curl --proxy-user user:hunter2 h",
        "wget --user=u --password=hunter2 h",
        "mysqldump --password=hunter2 shop",
        "sshpass -phunter2 ssh h",
        "docker login -u u --password hunter2",
        # lists, bytes, words and suffixes
        "tokens: ['x', 'hunter2']",
        'passwords=["hunter2"]',
        "password=b'hunter2'",
        "{b'password': b'hunter2'}",
        "API key: hunter2",
        "Secret access key: hunter2",
        "password=ab)hunter2",
        "password: ab&hunter2",
        "SECRET_KEY_BASE=hunter2",
        "password-new: hunter2",
        "bindpw=hunter2",
        "psk=hunter2",
        "JSESSIONID=hunter2",
        "password%3Dhunter2",
        "PASSWORD\thunter2",
        'password "hunter2"',
        "password: str = Field('hunter2')",
        # netrc
        "machine h\n  login u\n  password hunter2\n",
        "default login u password hunter2",
        "machine h login u account a password hunter2",
    ],
)
def test_a_secret_behind_its_name_is_masked(text: str) -> None:
    shown = mask(text)
    assert PW not in shown
    assert (HIDDEN in shown) or "|2" in text
    assert mask(shown) == shown


@pytest.mark.parametrize(
    "text", ["the password is swordfish", "password is swordfish.", "password is swordfish; go on"]
)
def test_a_secret_of_letters_at_the_end_of_a_sentence_is_masked(text: str) -> None:
    assert "swordfish" not in mask(text)


def test_what_surrounds_a_secret_stays() -> None:
    assert mask("a:\n  password: |\n    x\n    y\n  user: u\n") == "a:\n  password: |\n    ***\n  user: u\n"
    assert mask("<a><password>x</password><user>u</user></a>") == "<a><password>***</password><user>u</user></a>"
    assert mask("UID=u;PWD={a};Encrypt=yes") == "UID=u;PWD=***;Encrypt=yes"
    assert mask("curl -u user:pw https://h") == "curl -u user:*** https://h"
    assert mask("machine h login u password p") == "machine h login u password ***"
    assert mask("https://api.telegram.org/bot1:x/getMe") == "https://api.telegram.org/bot***/getMe"
    assert mask("password is x") == "password is ***"
    assert mask(':password => "x", :user => "u"') == ':password => ***, :user => "u"'


@pytest.mark.parametrize(
    "text",
    [
        "the password is required",
        "the password is wrong",
        "password is not set and token is missing",
        "the token is expired",
        "the token is 12 characters long",
        "the password is stored in the vault",
        "the secret is case-sensitive",
        "password was changed yesterday",
        "the password is in the file",
        "Enter password:\nlogin failed",
        "bypass=1",
        "byPass=1",
        "bypass: on",
        "compass: north",
        "trespass=2",
        "the first pass: done",
        "pass=12 fail=3",
        "two_pass=true",
        "passed: 12, failed: 0",
        "OLDPWD=/home/x",
        "pwd: /home/x",
        "password >= 8 characters",
        "if password == other",
        "password: the field is required",
        "partition_key=order",
        "monkey=banana",
        "key=order-17 value=3",
        "name=orders value=17",
        "<name>orders</name>",
        "<passwords/>",
        "docker run -u 1000:1000 image",
        "docker run --user 1000:1000 image",
        "the machine is down, log in with a password",
        "the default password is required",
        "robot/both=1",
        "https://example.org/bot/webhooks/list",
        "sku SK-0123 and skill-tree",
        "do_not_retry and glance-at-this-thing",
        "shape and re_entry_point",
        "patch.0123 and patent",
        "MESH.inbox.partition and Mesh.orders.placed",
        "keys: a, b",
        "key-value store and key-0123",
        "author: ann",
        "tokens used: 12 of 4,096",
        "python -p no:cacheprovider",
        "lin_alg and secret_santa",
        "AKIA is the prefix of an id",
        "Unexpected token: '}' at position 5",
        "token=3",
        "session_key: 12",
        "'pass': 3",
        "The secret is out.",
        "the password was reset",
        "mailto:a:b@c.de",
        "sk-learn-is-installed",
        "MyVeryLongModuleNameForTests.client.handleIncomingRequestsFromUsers",
    ],
)
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert mask(text) == text
