"""For every test: no example of hypothesis has a time limit, since the machine may be busy."""

from hypothesis import settings

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")
