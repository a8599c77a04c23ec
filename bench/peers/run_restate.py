"""run1 and run3 on Restate: its server (from npm) and a Python service in this process, asked over HTTP.

The server's folder and the ports stay when it is killed, so that it goes on where it was. As many partitions as the
mesh has; idempotency keys, as a payment would need.
"""

import asyncio
import json
import os
import socket
from pathlib import Path

import aiohttp  # type: ignore[import-not-found,unused-ignore]
import restate  # type: ignore[import-not-found,unused-ignore]
from hypercorn.asyncio import serve as serve_http  # type: ignore[import-not-found,unused-ignore]
from hypercorn.config import Config  # type: ignore[import-not-found,unused-ignore]

from bench.peers.run_load import drive, parse_options
from bench.peers.setup import RESTATE_SERVER

RUNS = parse_options()
READY_S = 60.0
LOCAL = "127.0.0.1"
service = restate.Service("Runs")


@service.handler()  # type: ignore[untyped-decorator,unused-ignore]
async def run(context: restate.Context, ask: str) -> str:
    """All steps, one after the other."""
    for number in range(1, RUNS.steps + 1):
        ask = await context.run_typed(f"step{number}", RUNS.step, number=number, ask=ask)
    return ask


def ports(path: Path) -> list[int]:
    """Four free ports, the same ones after a kill: node, ingress, admin, service."""
    if not path.exists():
        sockets = [socket.create_server((LOCAL, 0)) for _ in range(4)]
        path.write_text(json.dumps([s.getsockname()[1] for s in sockets]))
        for each in sockets:
            each.close()
    found: list[int] = json.loads(path.read_text())
    return found


async def serve() -> None:
    """Starts the server and the service, makes them known to each other, then asks."""
    node, ingress, admin, mine = ports(RUNS.folder / "ports")
    environ = {
        **os.environ,
        "RESTATE_BASE_DIR": str(RUNS.folder / "restate"),
        "RESTATE_BIND_ADDRESS": f"{LOCAL}:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://{LOCAL}:{node}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"{LOCAL}:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"{LOCAL}:{admin}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_NODE_NAME": "peer",
        "RESTATE_DEFAULT_NUM_PARTITIONS": "6",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
    }
    config = Config()
    config.bind = [f"{LOCAL}:{mine}"]
    config.loglevel = "ERROR"
    server = await asyncio.create_subprocess_exec(str(RESTATE_SERVER), env=environ, cwd=RUNS.folder)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        group.create_task(serve_http(restate.app([service]), config))
        await registered(session, f"http://{LOCAL}:{admin}", f"http://{LOCAL}:{mine}")
        url = f"http://{LOCAL}:{ingress}/Runs/run"

        async def post(address: str, id: str, ask: str) -> None:
            headers = {"idempotency-key": id}
            async with session.post(address, json=ask, headers=headers, raise_for_status=True) as answer:
                await answer.read()

        await drive(RUNS, call=lambda id, ask: post(url, id, ask), accept=lambda id, ask: post(f"{url}/send", id, ask))
    await server.wait()


async def registered(session: aiohttp.ClientSession, admin: str, mine: str) -> None:
    """Returns when the server knows the service and can call it. Raises TimeoutError."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                async with session.post(f"{admin}/deployments", json={"uri": mine, "force": True}) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass  # It is still starting.
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(serve())
