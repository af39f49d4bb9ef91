"""The one error that is the user's to mend, and the faults of a machine that one line explains."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST = 2000  # characters of a line that a person is shown
END = 600  # of these for its end, where the way out stands
MOST = 20  # lines
SHOWN = 60  # characters of a value in a line

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS = {
    errno.EROFS: "is on a read-only file system",
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted (an immutable file or folder? `lsattr -d` shows it)",
    errno.EFBIG: "would be larger than this process may write (`ulimit -f`)",
    errno.ENAMETOOLONG: "the name is too long",
    **dict.fromkeys(DISK_FULL, "no space left; free some and type it again"),
}
FULL = re.compile(r"No space left|os error (27|28|122)\b")  # as safetensors says it
MEMORY = re.compile(
    r"can't start new thread|can't allocate memory|[Cc]annot allocate memory|not enough memory"
    r"|failed to map segment"
)


class UserError(Exception):
    """A mistake that one line explains: where, what, what is allowed. The command ends with exit code 2.

    Several arguments are several mistakes, a line each. Whatever they quote, a line stays one, is bounded in
    length and does no harm to a terminal.
    """

    def __str__(self) -> str:
        lines = [one_line(str(line)) for line in self.args[:MOST]]
        more = [f"and {len(self.args) - MOST:,} more"] if len(self.args) > MOST else []
        return "\n".join([*lines, *more])


def one_line(text: str) -> str:
    """A text as one line of bounded length: cut in the middle, what cannot be printed escaped."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - END]} ... {text[-END:]}"
    if not text.isprintable():
        text = " ".join(text.splitlines())
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - END - 5]} ... {text[-END:]}"


def shown(value: Any) -> str:
    """A value as an error shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 18]} ... {text[-13:]}"


def exact(number: float) -> str:
    """A number with all its digits, so that two that differ read differently; a whole one without a point."""
    return repr(number).removesuffix(".0")


# what torch says where batch normalisation has one value a channel
LONE_IMAGE = "Expected more than 1 value per channel when training"


@contextmanager
def foreseen() -> Iterator[None]:
    """Say in one line what a disk, a permission or too little memory has done.

    Raises:
        UserError: from the exception, which is its cause. Exceptions of all other kinds pass.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if line := fault(error):
            raise UserError(line) from error
        raise


def fault(error: BaseException) -> str:
    """One line that says which fault of the machine an exception is; "" for all others."""
    if isinstance(error, OSError):
        where = error.filename or error.filename2
        if error.errno in WORDS or (error.errno and where):
            words = WORDS.get(error.errno, error.strerror)
            return f"{'disk' if where is None else where}: {words}"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | OSError) and MEMORY.search(_whole(error))
    ):
        said = f" ({one_line(str(error))[:200]})" if str(error) else ""
        return f"memory: there is not enough for this process{said}; free some, or raise `ulimit -v`"
    if type(error).__name__ == "SafetensorError" and FULL.search(str(error)):
        return f"disk: no space left ({error}); free some and type it again"
    return ""


def _whole(error: BaseException | None) -> str:
    """What an exception says, and what those say of which it came."""
    said: list[str] = []
    while error is not None and len(said) < MOST:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)
