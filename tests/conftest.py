"""Shared by every test: one thread, a fixed seed that failures print, no run without a result."""

import os
import random
import sys

import numpy as np
import pytest
from hypothesis import settings

# Read when torch and TVM are loaded, so they are set before any test module is imported.
for variable in ("OMP_NUM_THREADS", "TVM_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

SEED = int(os.environ.get("TEST_SEED", "20170227"))

# Deterministic examples; no deadline, because machines that run tests are shared.
settings.register_profile("project", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def seed():
    """Seed every global generator; TEST_SEED in the environment picks another one."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
    return SEED


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        report.sections.append(("Seed", f"TEST_SEED={SEED} repeats this run"))
    return report


def pytest_sessionfinish(session):
    """A run that only skipped has shown nothing: fail it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    is_worker = hasattr(session.config, "workerinput")
    if reporter is None or is_worker or session.config.option.collectonly:
        return
    if reporter.stats.get("skipped") and not reporter.stats.get("passed"):
        session.exitstatus = max(session.exitstatus, pytest.ExitCode.TESTS_FAILED)
