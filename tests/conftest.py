import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Speed is measured in benchmarks/; a slow machine is no failure.
settings.register_profile("longtail", deadline=None)
settings.load_profile("longtail")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compute on the CPU on every machine; `make test-gpu` runs those that need a GPU.
if "LONGTAIL_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

ROOT = Path(__file__).parents[1]


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
