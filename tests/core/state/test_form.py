"""The form of the core is that of the files which Python found."""

from mesh.core.state import partition_state
from mesh.core.state.form import COMPILED, PURE, form


def test_the_form_is_that_of_the_module_in_use() -> None:
    assert form() == (PURE if str(partition_state.__file__).endswith(".py") else COMPILED)
