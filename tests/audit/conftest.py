"""The zoo: a test that takes ``illusion`` runs once for each planted illusion, one that takes ``honest`` for each network.

Networks are trained when first asked for, and kept for the session. A test that wants one asks ``zoo.ILLUSIONS["name"]()``
or ``zoo.HONEST["name"](seed)``.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

_SEEDS = range(5)


def _load():
    # Modules of tests are not importable by name; the doctest collector may have loaded the package already.
    if "zoo" not in sys.modules:
        folder = Path(__file__).parent / "zoo"
        spec = importlib.util.spec_from_file_location("zoo", folder / "__init__.py")
        sys.modules["zoo"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["zoo"])
    return sys.modules["zoo"]


def pytest_generate_tests(metafunc):
    chosen = str([mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")])  # the test's own choice
    if "illusion" in metafunc.fixturenames and "illusion" not in chosen:
        metafunc.parametrize("illusion", _load().ILLUSIONS, indirect=True)
    if "honest" in metafunc.fixturenames and "honest" not in chosen:
        pairs = [(name, seed) for name in _load().HONEST for seed in _SEEDS]
        metafunc.parametrize("honest", pairs, indirect=True, ids=[f"{name}-{seed}" for name, seed in pairs])


@pytest.fixture(scope="session")
def zoo():
    return _load()


@pytest.fixture
def illusion(request):
    """One planted illusion; the parameter is its name."""
    return _load().ILLUSIONS[request.param]()


@pytest.fixture
def honest(request):
    """One honest network; the parameter is its name and its seed."""
    name, seed = request.param
    return _load().HONEST[name](seed)
