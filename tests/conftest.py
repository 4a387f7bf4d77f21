"""For all tests: Hypothesis draws the same examples every time, so that a failure is the change's own.

``HYPOTHESIS_PROFILE=search pytest tests/properties`` draws new ones, and many more of them.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
