"""So many in so much time, for each name. What is remembered is bounded, whoever asks."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock


class Rate:
    """At most ``most`` events in any ``seconds``, for each name apart; the names seen last are remembered, ``names`` of them."""

    def __init__(self, most: int, seconds: float, *, names: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        assert most > 0 and seconds > 0, (most, seconds)
        self._most, self._seconds, self._names, self._clock = most, seconds, names, clock
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, name: str) -> float:
        """Seconds until the next event of this name is allowed; 0 where it is now."""
        with self._lock:
            return self._wait(name, self._clock())

    def take(self, name: str) -> float:
        """Count an event and give 0, or count none and give the seconds until one is allowed."""
        with self._lock:
            now = self._clock()
            wait = self._wait(name, now)
            if not wait:
                self._seen.setdefault(name, deque()).append(now)
                self._seen.move_to_end(name)
                if len(self._seen) > self._names:
                    self._seen.popitem(last=False)
            return wait

    def _wait(self, name: str, now: float) -> float:
        seen = self._seen.get(name)
        while seen and seen[0] <= now - self._seconds:
            seen.popleft()
        return seen[0] + self._seconds - now if seen and len(seen) >= self._most else 0.0
