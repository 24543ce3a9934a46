"""Who may use the server: tokens, each with a name that the audit log tells, and what a browser keeps in their place."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from dinogrl.errors import DinogrlError

SHORTEST = 16
"""Letters of a token; a shorter one could be guessed."""
LOCAL = "local"
"""Whoever sits at the machine, where no token is asked for."""
SESSION_SECONDS = 12 * 3600
_SESSIONS = 1000


class Tokens:
    """name -> token.

    Raises :class:`DinogrlError` for a token that is too short or has other letters than printable ASCII, and for one that two have:
    the audit log could not tell them apart.
    """

    def __init__(self, by_name: Mapping[str, str]) -> None:
        for name, token in by_name.items():
            if len(token) < SHORTEST or not re.fullmatch(r"[!-~]+", token):
                raise DinogrlError(
                    f"the token of {name!r} must have {SHORTEST} or more printable letters without spaces; make one by:"
                    ' python -c "import secrets; print(secrets.token_urlsafe(32))"'
                )
        for name, token in by_name.items():
            other = next(one for one in by_name if by_name[one] == token)
            if other != name:
                raise DinogrlError(f"{other!r} and {name!r} have the same token; give each one of their own")
        # digests are equally long, so that comparing them tells nothing about the tokens' lengths either
        self._digests = {name: _digest(token) for name, token in by_name.items()}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, token: str) -> str | None:
        """Whose token it is, or None. All are compared, each in constant time."""
        given = _digest(token)
        found = [name for name, digest in self._digests.items() if secrets.compare_digest(digest, given)]
        return found[0] if found else None


class Sessions:
    """What a browser is given for a token: a random word that this process knows until it ends, or for twelve hours."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._lock = Lock()

    def open(self, name: str) -> str:
        """A new word for this person."""
        word = secrets.token_urlsafe(32)
        with self._lock:
            self._known[_digest(word)] = name, time.monotonic() + SESSION_SECONDS
            if len(self._known) > _SESSIONS:
                self._known.popitem(last=False)
        return word

    def name_of(self, word: str) -> str | None:
        """Whose word it is, or None."""
        with self._lock:
            name, end = self._known.get(_digest(word), ("", 0.0))
        return name if time.monotonic() < end else None

    def close(self, word: str) -> None:
        """Forget a word."""
        with self._lock:
            self._known.pop(_digest(word), None)


def read_tokens(path: Path) -> dict[str, str]:
    """``name token`` a line; empty lines and those that begin with # count for nothing.

    A line with one word is the token of "operator". Raises :class:`DinogrlError` for a file that cannot be read, holds no token, or
    has a name twice.
    """
    try:
        lines = [
            line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip() and line.strip()[0] != "#"
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DinogrlError(f"the token file {path} cannot be read ({error}); give a text file, `name token` a line") from error
    found: dict[str, str] = {}
    for words in lines:
        name, token = ("operator", words[0]) if len(words) == 1 else (words[0], words[-1])
        if len(words) > 2 or name in found:
            raise DinogrlError(f"the token file {path} must have one `name token` a line, and each name once; look at {name!r}")
        found[name] = token
    if not found:
        raise DinogrlError(f"the token file {path} holds no token; write `name token` a line")
    return found


def _digest(word: str) -> bytes:
    return hashlib.sha256(word.encode("utf-8", "surrogateescape")).digest()
