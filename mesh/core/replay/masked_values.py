"""Recognize values that an export masked, or, in older recordings, cut. Pure."""

import re
from typing import Any, Final

from mesh.core.redaction import mask_whole
from mesh.core.secret_formats import HIDDEN

_HIDDEN: Final = HIDDEN.encode()
_CUT: Final = re.compile(r"\[cut: [\d,]+ (?:characters|more)\]")
_CUT_END: Final = re.compile(r"… \[cut: [\d,]+ characters\]\Z")


def holds_masked(payload: bytes) -> bool:
    """Whether a payload in a recording that masks values may have a masked or a cut one."""
    return _HIDDEN in payload or (b"[cut: " in payload and _CUT.search(payload.decode("utf-8", "replace")) is not None)


def stands_for(recorded: Any, new: Any) -> bool:
    """Whether a recorded value is what an export makes of a new one: masked, or cut by an older version."""
    if not isinstance(recorded, str):
        return False
    if recorded == HIDDEN:
        return True
    if not isinstance(new, str):
        return False
    cut = _CUT_END.search(recorded)
    if cut is not None:
        return mask_whole("", new).startswith(recorded[: cut.start()])  # type: ignore[no-any-return]
    return HIDDEN in recorded and bool(mask_whole("", new) == recorded)


def not_compared(count: int) -> str:
    """Say how many places were not compared."""
    return f"{count:,} masked place{' was' if count == 1 else 's were'} not compared"
