"""A broker that was started for the benchmarks is warm before anybody measures on it."""

import subprocess
from typing import Any

import pytest

import bench.__main__ as bench_all
from bench.field import Setup
from bench.warming import warm


async def test_warming_up_runs_to_its_end() -> None:
    await warm(Setup(), seconds=0.1)


@pytest.mark.parametrize("failed", [False, True])
def test_a_broker_is_warmed_up_before_it_is_handed_out(monkeypatch: pytest.MonkeyPatch, failed: bool) -> None:
    done: list[str] = []

    def scripts_kafka(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        done.append(command[1])
        return subprocess.CompletedProcess(command, 0)

    def run(module: str, *arguments: str) -> bool:
        done.append(" ".join((module, *arguments)))
        return failed

    monkeypatch.setattr(subprocess, "run", scripts_kafka)
    monkeypatch.setattr(bench_all, "run", run)
    with bench_all.broker() as log:
        done.append("measured")
    assert done == ["start", f"bench.warming --log {log}", "measured", "stop"]
