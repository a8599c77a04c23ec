"""Settings of every test.

Examples of hypothesis have no time limit, since the machine may be busy. Ctrl-C reaches children. The garbage collector
ignores the objects of other tests while one test runs."""

import gc
import signal

from hypothesis import settings

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

# A shell starts what it puts in the background with interrupts ignored, and every child inherits that: a test that
# sends one would wait for ever. A handler of ours becomes the default again in whatever we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Thousands of collected tests are a pause of half a second whenever one of them makes the collector look at
    everything: longer than the deadlines that are tested."""
    gc.collect()
    gc.freeze()
