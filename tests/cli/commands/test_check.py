"""`mesh check`: topics.yaml, the code, and whether both agree."""

from pathlib import Path

from tests.cli.conftest import Cli, until

MISTAKES = """\
mesh:
  name: desk
  prefix: mesh
  limits: {depth_mx: 6, deadline: 30}
topics:
  hellos: {ingress: hello, partitions: none}
  greetings: {egress: greeted}
agents:
  greeter: {run: "desk:greet", on: helo, emits: greeted}
  keeper: {run: "desk.keep", on: greeting.kept}
  runner: {run: "desk:go_round", on: [hello, round.go], emits: [round.go, round.done]}
  napper: {run: "desk:nap", on: {all: [hello, never.said]}, emits: greeted, when: "hello.name =="}
  echo: {run: "desk:hear", on: hello, emits: greeted, timeout: soon}
"""


def test_a_mesh_that_holds_together_is_exit_code_0(project: Cli) -> None:
    done = project("check")
    assert done.code == 0
    assert done.out.startswith("✓ topics.yaml: 6 agents, 5 types in, 4 out")
    (row,) = project("check", "--json").rows
    assert (row["ok"], row["agents"], row["problems"]) == (True, 6, [])


def test_a_misspelt_field_is_found_before_the_mesh_starts(project: Cli) -> None:
    path = project.folder / "topics.yaml"
    path.write_text(path.read_text().replace("on: hello,", 'on: hello, when: "nme == 1",', 1))
    for verb in ("check", "up"):
        done = project(verb)
        assert done.code != 0
        assert "names no field of hello: there is no 'nme'" in done.out + done.err
        assert "Did you mean name?" in done.out + done.err


def test_ten_mistakes_are_ten_lines_each_with_its_place_and_remedy(project: Cli) -> None:
    (project.folder / "topics.yaml").write_text(MISTAKES)
    done = project("check")
    lines = done.out.splitlines()
    assert done.code == 1
    assert len(lines) >= 10, done.out
    assert f"✗ {len(lines)} problems" in done.err
    places = [line.partition(": ")[0] for line in lines]
    assert all(place.startswith("topics.yaml:") and place.rpartition(":")[2].isdigit() for place in places)
    assert all(line.count(". ") >= 1 for line in lines)
    assert any("Did you mean" in line for line in lines)
    (row,) = project("check", "--json").rows
    assert [f"{p['file']}:{p['line']}" for p in row["problems"]] == places


def test_other_commands_report_the_same_problems_and_exit_2(project: Cli) -> None:
    (project.folder / "topics.yaml").write_text(MISTAKES)
    told = project("check").out.splitlines()
    done = project("up")
    assert done.code == 2
    assert [line.strip() for line in done.err.splitlines()[1:]] == told


def test_differences_between_topics_yaml_and_the_functions_are_reported(project: Cli) -> None:
    file = project.folder / "topics.yaml"
    text = file.read_text()
    text = text.replace("emits: [greeted, greeting.kept], timeout: 5s", "emits: [greeted, greeting.kept, noted]")
    text = text.replace('run: "desk:hear", on: word.said', 'run: "desk:greet", on: word.said')
    text = text.replace('run: "desk:nap"', 'run: "desk:napp"')
    file.write_text(text)
    done = project("check")
    assert done.code == 1
    assert "greeter: declares 'noted', which its function never emits" in done.out
    assert "echo: its function takes no 'word.said'" in done.out
    assert "echo: its function takes 'hello', to which it does not subscribe" in done.out
    assert "echo: its function emits 'greeted', 'greeting.kept', which is not declared" in done.out
    assert "agent 'napper' cannot be imported from 'desk:napp'" in done.out
    assert all(line.startswith("topics.yaml:") for line in done.out.splitlines())


ROUGH = """\
from dataclasses import dataclass
from mesh import Emit, Payload
from desk import Greeted, Hello

@dataclass
class Rough:
    text: str

def vague(hello: Hello) -> Rough: ...

def half(hello: Hello) -> Greeted | Emit: ...

def late(hello: "Nowhere") -> None: ...
"""


def test_a_result_whose_type_is_not_known_or_not_declared_is_reported(project: Cli) -> None:
    (project.folder / "rough.py").write_text(ROUGH)
    file = project.folder / "topics.yaml"
    text = file.read_text()
    text = text.replace('run: "desk:greet"', 'run: "rough:vague"')
    text = text.replace('run: "desk:hear", on: word.said', 'run: "rough:half", on: word.said')
    text = text.replace('run: "desk:nap"', 'run: "rough:late"')
    file.write_text(text)
    out = " ".join(project("check").out.split())
    assert "greeter: its function returns a payload whose class names no event type, and `emits` lists 2 types" in out
    assert "echo: its function emits 'greeted', which is not declared" in out
    assert "rough:late" in out
    assert "rough.py:13" in out


def test_a_missing_topology_is_exit_code_2(cli: Cli) -> None:
    done = cli("check")
    assert done.code == 2
    assert done.err == (
        "error: topics.yaml: there is no such file; expected the mesh's topology. Name it with --topology\n"
    )


def test_the_example_mesh_holds_together(cli: Cli) -> None:
    done = cli("check", "--topology", str(Path(__file__).parents[3] / "topics.yaml"))
    assert done.code == 0, done.out


def test_a_missing_library_is_one_problem_with_its_place(cli: Cli) -> None:
    agents = "\n".join(f'  a{n}: {{run: "m{n}:work", on: ask, timeout: 5s}}' for n in range(3))
    (cli.folder / "topics.yaml").write_text(
        f"mesh: {{name: m}}\ntopics: {{asks: {{ingress: ask, partitions: 1}}}}\nagents:\n{agents}\n"
    )
    for n in range(3):
        (cli.folder / f"m{n}.py").write_text("import os\nimport no_such_library\n")
    done = cli("check", "--json")
    (problem,) = done.rows[0]["problems"]
    assert problem["what"] == (
        "agent 'a0' cannot be imported from 'm0:work': No module named 'no_such_library'"
        f" ({cli.folder}/m0.py, line 2); 2 more agents cannot be imported for it, too: a1, a2"
    )


BROKEN = """\
mesh: {name: m}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents:
  lacking: {run: "lacks:work", on: ask}
  lacking_too: {run: "lacks_too:work", on: ask}
  unclear: {run: "unclear:work", on: ask}
  bare: {run: "bare:work", on: ask}
  bare_too: {run: "bare:other", on: ask}
  late: {run: "raises:work", on: ask}
  good: {run: "good:work", on: ask, emits: answer}
  deaf: {run: "good:other", on: ask}
"""
MODULES = {
    "lacks": "import os\nimport no_such_library\n",
    "lacks_too": "import no_such_library\n",
    "unclear": "def work(:\n",
    "bare": "from mesh import agent\n\n@agent\ndef work(ask): ...\n\ndef other(ask: dict): ...\n",
    "raises": "def load():\n    raise ValueError('no key')\nload()\n",
    "good": (
        "from mesh import Payload\nclass Ask(Payload, type='ask'): ...\nclass Answer(Payload, type='answer'): ...\n"
        "def work(ask: Ask) -> Answer: ...\ndef other(answer: Answer): ...\n"
    ),
}


def test_up_reports_every_broken_agent_at_once_as_check_does(cli: Cli) -> None:
    (cli.folder / "topics.yaml").write_text(BROKEN)
    for name, text in MODULES.items():
        (cli.folder / f"{name}.py").write_text(text)
    up = cli("up")
    assert up.code == 2
    assert up.err.startswith("error: topics.yaml: 6 problems\n")
    lines = [line.strip() for line in up.err.splitlines()[1:]]
    assert lines == cli("check").out.splitlines()
    here = cli.folder
    for line, told in zip(
        lines,
        [
            f"topics.yaml:4: agent 'lacking' cannot be imported from 'lacks:work': No module named 'no_such_library' "
            f"({here}/lacks.py, line 2); 1 more agent cannot be imported for it, too: lacking_too. ",
            f"topics.yaml:6: agent 'unclear' cannot be imported from 'unclear:work': invalid syntax "
            f"({here}/unclear.py, line 1). ",
            f"topics.yaml:7: agent 'bare': bare:work ({here}/bare.py:3): parameter 'ask' has no annotation; expected a "
            "payload type or Context; 1 more agent cannot be imported for it, too: bare_too. ",
            f"topics.yaml:9: agent 'late' cannot be imported from 'raises:work': ValueError: no key "
            f"({here}/raises.py, line 2). ",
            f"topics.yaml:11: deaf: its function takes 'answer', to which it does not subscribe; see good:other "
            f"({here}/good.py:5). ",
            f"topics.yaml:11: deaf: its function takes no 'ask'; good:other ({here}/good.py:5) takes 'answer'. ",
        ],
        strict=True,
    ):
        assert line.startswith(told)


EMITTER = """\
mesh: {name: m, inbox: {partitions: 1}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents:
  one: {run: "ag:one", on: ask, emits: answer}
"""


def test_an_event_that_is_missing_in_emits_is_reported_at_its_emitter(cli: Cli) -> None:
    (cli.folder / "topics.yaml").write_text(EMITTER)
    (cli.folder / "ag.py").write_text(
        "from mesh import Emit\n\ndef one(ask: dict) -> Emit:\n    return Emit('answr', {})\n"
    )
    told = (
        f"topics.yaml:4: agent 'one' emitted 'answr', which it does not declare; expected 'answer' (its `emits`), got "
        f"'answr' from ag:one ({cli.folder}/ag.py:3). Did you mean 'answer'? Otherwise add 'answr' to `emits` of one, "
        "or change what ag:one returns"
    )
    with cli.up() as running:
        run = cli("publish", "ask", "{}", "--json").rows[0]["run"]
        until(lambda: cli("run", "show", run, "--json").rows[0]["state"] not in ("open", "working"))
        running.err_until(told)
    shown = cli("run", "show", run)
    assert told in " ".join(shown.out.split())
    assert "undeclared_type" in shown.out
