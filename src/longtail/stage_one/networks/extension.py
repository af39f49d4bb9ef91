"""The compiled batch normalisation + ReLU (fused_batchnorm.cpp): where it lies, building it, loading it.

Only `longtail build-extension` compiles. A training loads the file that lies there for this very source, if
it may be trusted; without one it computes as torch does. The library knows nothing of torch or Python, so it
stays good when their versions change.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from longtail.errors import UserError

COMPUTES = False  # whether an extension is there is a fact of a run, not its identity
SOURCE = Path(__file__).with_name("fused_batchnorm.cpp")
# no product is added to a sum unless the source says so: the bits do not depend on the compiler
FLAGS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC"),
    *("-mavx512f", "-mavx512bf16", "-ffp-contract=off", "-fno-math-errno"),
)
VARIABLE, OFF = "LONGTAIL_EXTENSION", "off"
LIBRARY, CHECKSUM = "fused_batchnorm.so", "sha256"
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, eq=False)
class Extension:
    """The functions of fused_batchnorm.cpp.

    Attributes:
        name: what run.json says of batch normalisation that they computed.
    """

    name: str
    forward: Any
    backward: Any

    def __deepcopy__(self, memo: Any) -> "Extension":
        return self  # of a network that is copied; code has no copies


@cache
def digest() -> str:
    """SHA-256 of what the library is made from: the source and the compiler's flags."""
    return sha256("\0".join(FLAGS).encode() + SOURCE.read_bytes()).hexdigest()


def folder() -> Path | None:
    """Where the library of this source lies, built or not; None where LONGTAIL_EXTENSION is off."""
    told = os.environ.get(VARIABLE, "")
    if told == OFF:
        return None
    base = Path(told) if told else Path(sys.prefix) / "lib" / "longtail"
    return base.absolute() / f"fused-batchnorm-{digest()[:16]}"


def extension() -> Extension | None:
    """The library of this source, if it was built, may be trusted and this processor can run it."""
    place = folder()
    return load(place) if place else None


@cache  # so that a process decides once
def load(place: Path) -> Extension | None:
    """The library in a folder; one that is not to be trusted is left alone, which one line on stderr says."""
    if not place.is_dir():
        return None
    if reason := _mistrusted(place):
        print(
            f"{place}: {reason}, so it is not used; delete it, `longtail build-extension` makes it anew",
            file=sys.stderr,
            flush=True,
        )
        return None
    try:
        library = ctypes.CDLL(str(place / LIBRARY))
    except OSError:  # built on another kind of machine that shares the folder
        return None
    if not library.supported():
        return None
    data, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    forward, backward = library.forward, library.backward
    forward.argtypes = [data, data, data, size, size, data, data, data, data, number, number, data]
    backward.argtypes = [data, data, data, data, data, size, size, data, data, data, data]
    forward.restype = backward.restype = None
    return Extension(f"fused {digest()[:8]}", forward, backward)


def _mistrusted(place: Path) -> str:
    """Why the library in a folder is not to be executed; empty if it may be."""
    try:
        for path in (place, place / LIBRARY, place / CHECKSUM):
            found = path.lstat()
            if found.st_uid not in (0, os.getuid()):
                return f"{path.name} belongs to another user"
            if found.st_mode & 0o022:
                return f"{path.name} may be written by other users"
        if sha256((place / LIBRARY).read_bytes()).hexdigest() != (place / CHECKSUM).read_text("utf-8"):
            return f"{LIBRARY} is damaged"
    except (OSError, UnicodeDecodeError) as error:
        return f"it is not complete ({error})"
    return ""


def build() -> None:
    """Compile the library for this source and put it in its place.

    Raises:
        UserError: without a compiler that can do it, or where nothing can be written.
    """
    place = folder()
    if place is None:
        raise UserError(f"{VARIABLE} is {OFF}: unset it, or name a folder for the extension")
    found = [name for name in COMPILERS if shutil.which(name)]
    compiler = shlex.split(os.environ.get("CXX", "")) or found[:1]
    if not compiler:
        raise UserError("no C++ compiler: install g++ 10 or later, or name one by CXX")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent))
    except OSError as error:
        raise UserError(
            f"{place.parent}: cannot be written ({error.strerror}); name another folder by {VARIABLE}, "
            "for trainings too"
        ) from error
    try:
        _compile(compiler, made / LIBRARY)
        (made / CHECKSUM).write_text(sha256((made / LIBRARY).read_bytes()).hexdigest(), "utf-8")
        for path, mode in ((made / LIBRARY, 0o644), (made / CHECKSUM, 0o644), (made, 0o755)):
            path.chmod(mode)
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    except OSError as error:  # an old one that belongs to another user, a full disk
        raise UserError(f"{place}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    load.cache_clear()
    known = load(place)
    use = (
        f"trainings in bf16 use it ({known.name})" if known else "not used: no AVX512_BF16 in this processor"
    )
    print(f"{place / LIBRARY}: {use}")


def _compile(compiler: list[str], to: Path) -> None:
    try:
        done = subprocess.run(
            [*compiler, *FLAGS, "-o", str(to), str(SOURCE)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError(f"CXX: {compiler[0]}: cannot be started ({error.strerror})") from error
    if done.returncode:
        wrong = [line.strip() for line in done.stderr.splitlines() if "error" in line]
        raise UserError(
            f"{compiler[0]} cannot compile {SOURCE.name} ({(wrong or [f'exit {done.returncode}'])[0]}); "
            "it takes g++ 10 or clang 9 or later on x86-64, and CXX names another one"
        )
