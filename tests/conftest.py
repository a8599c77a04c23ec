"""Settings of every test.

Examples of hypothesis have no time limit, since the machine may be busy. Ctrl-C reaches children. The garbage collector
ignores the objects of other tests while one test runs. What a test does to loggers and to the search for modules is
undone; a test that changes anything else of the process fails."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from mesh.app.compiled_core import require_fresh
from mesh.core.errors import ConfigInvalid
from tests import workers

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

# A shell starts what it puts in the background with interrupts ignored, and every child inherits that: a test that
# sends one would wait for ever. A handler of ours becomes the default again in whatever we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Refuse to test compiled modules that are older than their sources."""
    try:
        require_fresh()
    except ConfigInvalid as error:
        pytest.exit(f"error: {error}", returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.FilesAndLive:
    """See `tests/workers.py`, as of all hooks below."""
    return workers.FilesAndLive(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest where workers share the tests."""
    if hasattr(config, "workerinput"):
        workers.live_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep what a worker has said at its end; one that crashed has said nothing."""
    workers.take_over(node.config, getattr(node, "workeroutput", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where required tests were left out."""
    workers.fail_if_required(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Never be silent about tests that were not run."""
    workers.report(terminalreporter, config)


def pytest_collection_finish() -> None:
    """Thousands of collected tests are a pause of half a second whenever one of them makes the collector look at
    everything: longer than the deadlines that are tested."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a test did to loggers: commands in the process of the tests set levels and handlers as in their own."""
    handlers, levels = logging.root.handlers[:], _levels_of_loggers()
    yield
    logging.root.handlers[:] = handlers
    for name, level in _levels_of_loggers().items():
        if level != (before := levels.get(name, logging.NOTSET)):
            logging.getLogger(name).setLevel(before)


@pytest.fixture(autouse=True)
def _imports_as_before() -> Iterator[None]:
    """Undo what a test did to the search for modules: a process uses one folder of agents, and the tests use many."""
    path, finders = sys.path[:], sys.meta_path[:]
    yield
    sys.path[:], sys.meta_path[:] = path, finders


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Fail where a test leaves the process otherwise than it was: the next test would meet it."""
    before = _process()
    yield
    after = _process()
    assert after == before, {name: (before[name], value) for name, value in after.items() if value != before[name]}


@pytest.fixture
def collector() -> Iterator[None]:
    """Give the garbage collector its thresholds back, which a command of the test sets for its process."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


def _process() -> dict[str, Any]:
    """Return what tests of one process share, without loggers and modules."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),
        "signals": [
            signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
        ],
        "umask": umask,
        "collector": (gc.isenabled(), gc.get_threshold()),
        "hooks": (sys.excepthook, threading.excepthook, sys.breakpointhook),
        "arguments": sys.argv[:],
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval()),
        "clock": time.tzname,
    }


def _levels_of_loggers() -> dict[str, int]:
    named = logging.root.manager.loggerDict.items()
    return {"root": logging.root.level} | {
        name: logger.level for name, logger in named if isinstance(logger, logging.Logger)
    }
