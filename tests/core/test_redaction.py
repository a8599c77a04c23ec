"""Masked and unmasked texts, and the time that masking takes. No secret here is real."""

import time
from decimal import Decimal
from typing import Any

import pytest

from mesh.core.redaction import CHARS_MAX, DEPTH_MAX, HEAD_CHARS_MAX, mask, mask_address, mask_end, mask_value
from tests.core.test_secret_formats import NAMED_SAMPLES, SHAPE_SAMPLES

HEX = "0123456789abcdef" * 3
WORD = "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        # names
        ("password=hunter2, user=x", "hunter2"),
        ('{"password": "hun ter2", "a": 1}', "hun ter2"),
        ('{"password": "hun\\"ter2", "a": 1}', "ter2"),
        ("{'api_key': 'abc def'}", "abc def"),
        ("PASSWD : x1y2", "x1y2"),
        ("MESH_TOKEN=t0p", "t0p"),
        ("tokens=abc", "abc"),
        ("password: 'cut in the mid", "mid"),
        ('body was {\\"password\\": \\"hun ter2\\", \\"a\\": 1}', "hun ter2"),
        ("PGPASSWORD=hunter2 psql", "hunter2"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "wJalrXUtnFEMI"),
        ("refresh_token=1//0abc&x=1", "1//0abc"),
        ("client_secret: s3cr3t", "s3cr3t"),
        ("x-api-key: abc123", "abc123"),
        ("//registry.example/:_authToken=abc123", "abc123"),
        ('sasl.jaas.config=…PlainLoginModule required username="u" password="p w";', "p w"),
        ("MESH_KAFKA__SASL_PLAIN_PASSWORD=hunter2", "hunter2"),
        ("mesh up --board-password hunter2 --limit 3", "hunter2"),
        ("curl --token abc123 https://x", "abc123"),
        # connection strings
        ("Server=tcp:h,1433;User ID=sa;Password=p@ss!;Encrypt=true", "p@ss!"),
        ("Data Source=h;Pwd=p4ss", "p4ss"),
        ("host=h user=u password='p w' dbname=d", "p w"),
        ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=Zm9vYmFy/+ab==;EndpointSuffix=x", "Zm9vYmFy"),
        ("Endpoint=sb://h/;SharedAccessKeyName=n;SharedAccessKey=Zm9vYmFyYmF6=", "Zm9vYmFyYmF6"),
        ("jdbc:postgresql://h/db?user=u&password=p4ss&ssl=true", "p4ss"),
        # URLs
        ("postgres://u:p4ss@h/db", "p4ss"),
        ("redis://:pw1@h:6379/0", "pw1"),
        ("kafka://user:pw@h1:9092,h2:9092", "pw@"),
        ("kafka:user:pw1@h:9092", "pw1"),
        ("amqp://u:p@ss@h:5672/vhost", "ss@h"),
        ("redis://u:p/a#s?s@h:6379", "a#s"),
        ("mysql+pymysql://u:p%40ss@h", "p%40ss"),
        ("mongodb+srv://u:p4ss@a.example,b.example/?w=1", "p4ss"),
        (f"https://{WORD}@h.example/path", WORD),
        (f"https://a.blob.example/c?sv=2022&sig={WORD}%3D&se=1", WORD),
        (f"https://b.example/k?X-Amz-Signature={HEX}&x=1", HEX),
        (f"https://maps.example/api?key={WORD}", WORD),
        (f"https://hooks.slack.com/services/T0001/B0002/{WORD}", WORD),
        # headers
        ("Authorization: Bearer abcdefghijk", "abcdefghijk"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("{'Authorization': 'Token abcdef'}", "abcdef"),
        (f"authorization={WORD}", WORD),
        (f"Authorization: AWS4-HMAC-SHA256 Credential=AKIAABCDEFGHIJKLMNOP/x, Signature={HEX}", HEX),
        ("token: Bearer abcdefghijkl", "abcdefghijkl"),
        (f"sent bearer {WORD}", WORD),
        ("Cookie: session=abc; csrf=def", "def"),
        ("Set-Cookie: sid=abc123; HttpOnly", "abc123"),
        # shapes of keys
        ("with sk-abcdefghijklmnop it fails", "sk-abcdefghijklmnop"),
        (f"sk-proj-{WORD}", WORD),
        (f"sk-ant-api03-{WORD}", WORD),
        (f"sk_live_{WORD}", WORD),
        ("ghp_abcdefghijklmnop", "ghp_abcdefghijklmnop"),
        ("github_pat_11ABCDEFGHIJK", "11ABCDEFGHIJK"),
        (f"glpat-{WORD}", WORD),
        (f"npm_{WORD}", WORD),
        (f"pypi-AgEI{WORD}", WORD),
        (f"hf_{WORD}", WORD),
        (f"gsk_{WORD}", WORD),
        (f"AIza{WORD}", WORD),
        (f"ya29.{WORD}", WORD),
        (f"SG.{WORD}.{WORD}", WORD),
        (f"shpat_{HEX}", HEX),
        (f"hvs.{WORD}", WORD),
        (f"whsec_{WORD}", WORD),
        (f"dckr_pat_{WORD}", WORD),
        (f"xoxb-1234567890-{WORD}", WORD),
        (f"123456789:AA{WORD}", WORD),
        ("id AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "eyJzdWIiOiIx"),
        # keys in PEM
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE\n-----END ENCRYPTED PRIVATE KEY-----", "MIIE"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIE\n"
            "-----END EC PRIVATE KEY-----",
            "MIIE",
        ),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\\nb3Blbn\\n-----END OPENSSH PRIVATE KEY-----", "b3Blbn"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQdG=ab\n-----END PGP PRIVATE KEY BLOCK-----", "lQdG"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE and the rest was cut", "MIIE"),
    ],
)
def test_a_secret_does_not_survive(text: str, secret: str) -> None:
    shown = mask(text)
    assert secret not in shown
    assert "***" in shown
    assert mask(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "a token was refused",
        "budget_tokens: a > b would bring the run to 12 tokens, at most 10",
        "tokens: 5",
        "max_tokens=4096",
        "https://example.org/a:b@c",
        "https://h.example:8080/users/a@b.example",
        "http://[::1]:8080/a@b",
        "ssh://git@h.example:22/repo and git@h.example:org/repo",
        "kafka://h1:9092,h2:9092",
        "order.placed does not fit: total: Field required",
        "order.placed does not fit: password: Field required",
        "order.placed does not fit: api_key: Input should be a valid string",
        "def login(user: str, password: str, token: bytes | None) -> bool",
        "assert password == expected",
        "the password: must have 8 characters",
        "--token is required",
        "the basics of bearers",
        "Basic authentication failed",
        "Authorization failed: denied for topic orders",
        "authorization: denied",
        "duplicate key value violates unique constraint pk_order_lines_order_id",
        "npm_config_registry and hf_hub_download",
        "PWD=/home/x is the working directory",
        "orders.placed:3:17 lies at mesh.inbox:0:4",
        "at 12:30:45 by ann@desk",
        "https://shop.example/find?key=order_id&code=404",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "risk-assessment-for-customers and task-0123456789abcdef",
        "std::string key::value",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert mask(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert mask("connect postgres://u:p4ss@h/db as u, password=x; retry") == (
        "connect postgres://u:***@h/db as u, password=***; retry"
    )
    assert mask("Authorization: Bearer abc.def, then go on") == "Authorization: Bearer ***, then go on"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("kafka://user:pw@h1:9092,h2:9092", "kafka://user:***@h1:9092,h2:9092"),
        ("kafka:user:p w@h:9092", "kafka:user:***@h:9092"),
        ('redis://u:p"@/#?x@h:6379/0?password=y', "redis://u:***@h:6379/0?password=***"),
        ("rediss://:pw@h", "rediss://:***@h"),
        ("redis://onlyasecret@h", "redis://***@h"),
        ("unknown:u:8080/pw@h", "unknown:u:***@h"),
        ("sqlite:/home/a@b/.mesh/mesh.db", "sqlite:/home/a@b/.mesh/mesh.db"),
        ("redis://h:6379/0", "redis://h:6379/0"),
    ],
)
def test_an_address_is_shown_without_its_password_whatever_that_is_like(url: str, shown: str) -> None:
    assert mask_address(url) == shown


def test_fields_are_masked_by_their_names_and_their_texts() -> None:
    fields = {"board": "redis://:pw@h", "sasl_password": "x", "n": 5, "api_key": "", "why": ["token=x", {"token": "y"}]}
    assert mask_value("", fields) == {
        "board": "redis://:***@h",
        "sasl_password": "***",
        "n": 5,
        "api_key": "",
        "why": ["token=***", {"token": "***"}],
    }


def test_values_that_json_does_not_know_are_masked_too() -> None:
    class Shown:
        def __repr__(self) -> str:
            return "Shown(password='hunter2')"

    fields = {"error": ValueError("token=t0p"), "raw": b"password=x1", "shown": Shown(), "set": {"token=t0p"}, "n": 1.5}
    assert mask_value("", fields) == {
        "error": "token=***",
        "raw": "b'password=***'",
        "shown": "Shown(password=***)",
        "set": ["token=***"],
        "n": 1.5,
    }
    assert mask_value("", {"sk-abcdefghijklmnop": Decimal(1)}) == {"***": "1"}
    assert mask_value("pwd", Decimal(1)) == "***"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", 12345),
        ("password", {"a": "hunter2"}),
        ("h", {"Authorization": "hunter2"}),
        ("h", {"Cookie": "hunter2=1"}),
        ("private_key_pem", "hunter2"),
        ("args", ("--password", "hunter2")),
        ("h", [["x-api-key", "hunter2"]]),
    ],
)
def test_a_field_with_the_name_of_a_secret_is_masked_whatever_its_type(name: str, value: Any) -> None:
    shown = repr(mask_value(name, value))
    assert "hunter2" not in shown
    assert "12345" not in shown
    assert mask_value("tokens", 4096) == 4096


def test_a_long_text_is_cut_and_says_so() -> None:
    words = "lorem " * 1_000_000
    kept = CHARS_MAX // 6 * 6
    assert mask(words) == f"{words[:kept]}… [cut: {6_000_000 - kept:,} characters]"
    assert mask_end(words) == f"[cut: the end of 6,000,000 characters]\n{words[-CHARS_MAX + HEAD_CHARS_MAX :]}"
    assert mask("x" * CHARS_MAX) == mask_end("x" * CHARS_MAX) == "x" * CHARS_MAX


SHORT = 6_000
SAMPLES = [*NAMED_SAMPLES.values(), *(sample for samples in SHAPE_SAMPLES.values() for sample in samples)]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_secret_at_a_cut_is_masked(sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut lies before each of the characters in turn."""
    monkeypatch.setattr("mesh.core.redaction.CHARS_MAX", SHORT)
    secret = "hunter2" if "hunter2" in sample else HEX[:24] if HEX[:24] in sample else sample
    first = sample.index(secret)
    for shown in range(first + 4, len(sample)):
        text = ("lorem " * 20_000)[-(SHORT - shown - 1) :] + "\n" + sample + " lorem" * 100
        assert text[:SHORT].endswith(sample[:shown])
        assert secret[:4] not in mask(text)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_secret_behind_a_cut_is_masked(sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a text is kept, with the cut after each of its characters in turn."""
    monkeypatch.setattr("mesh.core.redaction.CHARS_MAX", SHORT)
    secret = "hunter2" if "hunter2" in sample else HEX[:24] if HEX[:24] in sample else sample
    for hidden in range(1, sample.index(secret) + len(secret) - 4):
        text = "lorem " * 100 + sample + "\n" + ("lorem " * 20_000)[: SHORT - len(sample) + hidden - 1]
        assert text[-SHORT:].startswith(sample[hidden:])
        assert secret[-4:] not in mask_end(text)


def test_a_key_without_its_beginning_is_masked_in_the_end_of_a_text() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBg\n" * 6_000 + "-----END PRIVATE KEY-----\n"
    assert "MIIE" not in mask_end(key + "ValueError: bad key")
    assert mask_end(key + "ValueError: bad key").endswith("***-----END PRIVATE KEY-----\nValueError: bad key")


def test_a_value_is_cut_as_a_whole() -> None:
    many = mask_value("", {"rows": ["x" * 1_000] * 10_000, "after": "y"})
    assert len(many["rows"]) == 66
    assert many["rows"][-1] == "[cut: 9,935 more]"
    assert many["…"] == "[cut: 1 more]"
    assert mask_value("", [*range(10_000)])[-1] == "[cut: 5,905 more]"
    assert mask_value("", {"k" * 6_000_000: 1, "a": 2}) == {
        f"{'k' * (CHARS_MAX - 16 - 1_024)}… [cut: 5,935,504 characters]": 1,
        "…": "[cut: 1 more]",
    }


def test_a_value_that_contains_itself_is_shown() -> None:
    inner: list[Any] = ["token=x"]
    inner.append(inner)
    shown = mask_value("", inner)
    for _ in range(DEPTH_MAX):
        assert shown[0] == "token=***"
        shown = shown[-1]
    assert shown == "['token=***', [...]]"


UNITS = [
    *(
        "a",
        "A",
        "0",
        " ",
        "-",
        "_",
        ".",
        ":",
        "=",
        "/",
        "@",
        "\n",
        "'",
        '"',
        "\\",
        "<",
        "é",
        "a\n",
        "a@",
        "a:",
        "a.",
        "a-",
    ),
    *("a://b:@", "a://", "a://b:", "a:b:", "a.b-c+", "-a-a-", "password=", "token ", "password='", 'password="\\"'),
    *(
        "bearer ",
        "bearer aA",
        "sk-",
        "eyJabcdefgh.",
        "--token ",
        "Authorization: ",
        "cookie: a; ",
        "?sig=",
        "signature=",
    ),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "secret_access_", "1:AA", "SG.", '\\"', "tokens: ", "<password>"),
    *("<password ", "<password><![CDATA[", "name=password value=", "name:password ", "password: |\n", "password: |\n "),
    *("- password: ", "password: a b c ", "password is ", "curl -u a:", "curl ", "mysql ", "redis-cli ", "machine a "),
    *(
        "machine a login ",
        "default login a account ",
        "PWD={",
        "PWD={}}",
        "M",
        "MN.",
        "Pass",
        "aPass",
        "pwd",
        "auth_key",
    ),
]


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_makes_it_slow(unit: str) -> None:
    """Quadratic patterns took 90 seconds for the first of these; a line of 6 MB took 29 seconds of linear ones."""

    def seconds(chars: int) -> float:
        text = unit * (chars // len(unit))
        start = time.process_time()
        mask(text)
        return time.process_time() - start

    seconds(1_000)  # compiles
    long = seconds(6_000_000)
    assert long < 1
    assert long < max(60 * seconds(CHARS_MAX // 16), 0.1)  # 16 times for a linear one, 256 times for a quadratic one
