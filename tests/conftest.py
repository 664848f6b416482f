"""What holds for every test: hypothesis is not held to a clock, since on a busy machine a draw may take seconds."""

import gc

from hypothesis import HealthCheck, settings

# Where the variable CI is set, hypothesis itself draws the same examples each time, so that what fails there
# fails again here. Its default then is this profile's parent.
settings.register_profile(
    "without_a_clock", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("without_a_clock")


def pytest_collection_finish():
    """Let the collector leave alone what thousands of tests have been made of, and what they import."""
    gc.collect()
    gc.freeze()
