"""Settings shared by the tests of this room."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("evaluation", deadline=None)  # a busy machine is no failure
settings.load_profile("evaluation")
