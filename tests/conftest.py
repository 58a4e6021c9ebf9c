"""For every test: what hypothesis tries is never judged by this host's wall time."""

from hypothesis import settings

settings.register_profile("any host", deadline=None)
settings.load_profile("any host")
