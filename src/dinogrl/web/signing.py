"""Signing in: a token, or the session that a browser got for one, becomes a name; guessing is slow, and written down."""

from __future__ import annotations

from fastapi import HTTPException

from dinogrl.web.audit import AuditLog
from dinogrl.web.limits import Limits
from dinogrl.web.metrics import Metrics
from dinogrl.web.rates import Rate
from dinogrl.web.tokens import LOCAL, Sessions, Tokens


class SigningIn:
    """Where there are no ``tokens`` everybody is :data:`LOCAL`."""

    def __init__(self, tokens: Tokens, limits: Limits, metrics: Metrics, audit: AuditLog) -> None:
        self.needed = bool(tokens)
        self.sessions = Sessions()
        self._tokens, self._metrics, self._audit = tokens, metrics, audit
        self._failed = Rate(limits.failed_tokens, limits.failed_minutes * 60)

    def by_token(self, token: str, address: str) -> str:
        """Whose token it is. Raises :class:`HTTPException` 401 for nobody's, 429 after too many of these from one address."""
        if not self.needed:
            return LOCAL
        wait = self._failed.wait(address)
        if wait:
            raise HTTPException(429, "too many wrong tokens; try again later", {"Retry-After": str(int(wait) + 1)})
        name = self._tokens.name_of(token)
        if name is None:
            self._failed.take(address)
            self._metrics.failed_tokens.inc()
            self._audit.write("wrong token", "unknown", address=address)
            raise HTTPException(401, "this token is nobody's", {"WWW-Authenticate": "Bearer"})
        return name

    def by_session(self, word: str) -> str | None:
        """Whose session it is, or None."""
        return self.sessions.name_of(word) if self.needed else LOCAL
