import subprocess
import sys

from mesh.adapters.traced_requests import traced_requests


def test_a_program_without_opentelemetry_does_not_import_it() -> None:
    code = (
        "import sys; from mesh.adapters.traced_requests import traced_requests as t; import mesh.client\n"
        "with t('', [], 'mesh.inbox'): print('opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_a_provider_there_are_no_spans() -> None:
    with traced_requests("kafka://b", [], "mesh.inbox"):
        pass
