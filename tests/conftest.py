"""Settings of every test.

Examples of hypothesis have no time limit, since the machine may be busy. Ctrl-C reaches children. The garbage collector
ignores the objects of other tests while one test runs. What a test does to loggers is undone."""

import gc
import logging
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests import workers

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

# A shell starts what it puts in the background with interrupts ignored, and every child inherits that: a test that
# sends one would wait for ever. A handler of ours becomes the default again in whatever we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def _levels_of_loggers() -> dict[str, int]:
    named = logging.root.manager.loggerDict.items()
    return {"root": logging.root.level} | {
        name: logger.level for name, logger in named if isinstance(logger, logging.Logger)
    }
