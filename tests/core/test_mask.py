"""What is masked in text for people, what is left alone, and that no text makes masking slow. No value here is real."""

import time

import pytest

from mesh.core.mask import masked, masked_address, masked_value

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
    shown = masked(text)
    assert secret not in shown
    assert "***" in shown
    assert masked(shown) == shown


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
    assert masked(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert masked("connect postgres://u:p4ss@h/db as u, password=x; retry") == (
        "connect postgres://u:***@h/db as u, password=***; retry"
    )
    assert masked("Authorization: Bearer abc.def, then go on") == "Authorization: Bearer ***, then go on"


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
    assert masked_address(url) == shown


def test_fields_are_masked_by_their_names_and_their_texts() -> None:
    fields = {"board": "redis://:pw@h", "sasl_password": "x", "n": 5, "api_key": "", "why": ["token=x", {"token": "y"}]}
    assert masked_value("", fields) == {
        "board": "redis://:***@h",
        "sasl_password": "***",
        "n": 5,
        "api_key": "",
        "why": ["token=***", {"token": "***"}],
    }


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "a://b:@",
            "password=",
            "token ",
            "password='",
            'password="\\"',
            "a://",
            "a://b:",
            "a:b:",
            "bearer ",
            "sk-",
        ),
        *("eyJabcdefgh.", "a.b-c+", " ", "--token ", "-a-a-", "Authorization: ", "cookie: a; ", "?sig=", "signature="),
        *(
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN ",
            "secret_access_",
            "bearer aA",
            "1:AA",
            "SG.",
            '\\"',
            "tokens: ",
        ),
    ],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    """Quadratic patterns took 90 seconds for the first of these."""
    text = unit * (100_000 // len(unit))
    start = time.process_time()
    masked(text)
    assert time.process_time() - start < 1
