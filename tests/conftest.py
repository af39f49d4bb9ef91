import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Speed is measured in benchmarks/; a slow machine is no failure.
settings.register_profile("here", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=100)
settings.load_profile("ci" if os.environ.get("CI") else "here")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["LONGTAIL_EXTENSION"] = "off"  # whether it is built here or not; its own tests build it
# Tests compute on the CPU on every machine; `make test-gpu` runs those that need a GPU.
if "LONGTAIL_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

ROOT = Path(__file__).parents[1]
# Where tests take seconds each: these begin first, so that at the end no process waits for another.
SLOWEST = (
    "workflow",
    "stage_one/test_ranks.py",
    "test_extending.py",
    "publish/test_figures.py",
    "export",
    "orchestration",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by how slow their files are; the order within a file stays."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT / "tests")
        slow = [number for number, name in enumerate(SLOWEST) if path.is_relative_to(name)]
        return slow[0] if slow else len(SLOWEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the project; tests that need it skip visibly where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs ../shared/data (real CIFAR-100), which is not here")
    return folder


@pytest.fixture(scope="session")
def official_cifar100(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the official files of CIFAR-100, rebuilt byte for byte."""
    root = tmp_path_factory.mktemp("cifar100")
    subprocess.run([sys.executable, shared / "data/cifar100/unpack.py", root], check=True)
    return root
