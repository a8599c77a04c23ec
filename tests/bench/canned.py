"""Results as they are kept, for tests of what is made of them."""

from collections.abc import Mapping
from typing import Any

from bench.report import FORMAT


def figure(name: str, value: float, **others: Any) -> dict[str, Any]:
    """A figure as it stands in a result."""
    plain = {"unit": "runs/s", "better": "more", "at": {}, "samples": [], "limit": False}
    return {"name": name, "value": value, **plain, **others}


def body(workload: str, *figures: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """A result as it is kept."""
    return {
        "format": FORMAT,
        "subject": "mesh",
        "workload": workload,
        "what": f"what {workload} measures",
        "how": f"How {workload} is measured.",
        "log": "sqlite",
        "safe": None,
        "settings": {"seconds": 5.0},
        "figures": list(figures),
        "command": f"mesh bench {workload} --for 5s",
        "measured_at": "2026-11-20T12:01:07Z",
        "commit": "8e40541",
        "machine": {"cpu": "A processor", "cores": 2, "memory_gib": 24, "system": "Linux", "load_1m": 0.1},
        "versions": {"python": "3.11.7"},
        **others,
    }
