"""What happened so far, counted by the server's thread and read by everybody."""

import threading
import time
from collections import Counter

from .incoming import Incoming
from .recorded import RecordedRequest


class Ledger:
    """Counters and requests under one lock; `changed` is notified after every change."""

    def __init__(self, *, keep: bool = True) -> None:
        self.changed = threading.Condition()
        self.requests: list[RecordedRequest] = []
        self.disconnects: list[RecordedRequest] = []
        self.connections = 0
        self.open_connections = 0
        self.received = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self._attempts: Counter[int] = Counter()
        self._keep = keep

    def accepted(self) -> int:
        """Count a connection and return its number."""
        with self.changed:
            self.connections += 1
            self.open_connections += 1
            self.changed.notify_all()
            return self.connections

    def closed(self) -> None:
        with self.changed:
            self.open_connections -= 1
            self.changed.notify_all()

    def record(self, incoming: Incoming, connection: int, turn: int) -> RecordedRequest:
        """Note a request that is complete and not answered yet."""
        same = hash((incoming.path, incoming.body))
        with self.changed:
            self.received += 1
            self._attempts[same] += 1
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            request = RecordedRequest(
                method=incoming.method,
                path=incoming.path,
                target=incoming.target,
                headers=incoming.headers,
                body=incoming.body,
                number=self.received,
                attempt=self._attempts[same],
                connection=connection,
                turn=turn,
                at=time.monotonic(),
            )
            if self._keep:
                self.requests.append(request)
            self.changed.notify_all()
        return request

    def finished(self, request: RecordedRequest, *, left: bool) -> None:
        """Note the end of a request; `left`: its client went away before."""
        with self.changed:
            self.in_flight -= 1
            if left:
                self.disconnects.append(request)
            self.changed.notify_all()
