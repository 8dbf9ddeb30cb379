"""What asks servers about themselves, in a thread of its own, so that no call waits for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from .core.actions import Cancelled
from .core.events import CooldownBegan
from .core.scouting import Scouting
from .errors import QuotaExhausted
from .state.courier import Courier
from .transports.blocking import Conversation, drive, finish
from .transports.pool import BlockingTransport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .core.events import Event
    from .core.router import Router
    from .errors import OllamaBridgeError
    from .transports.tls import TlsContexts


class Scouts(Courier[str]):
    """Runs the errands of routes as calls take them. Thread-safe; nothing in it raises.

    The thread is started by the first call of a route that has any, see ``Scouting``. It has
    connections of its own, and keeps none.
    """

    _name: ClassVar = __name__
    _complaint: ClassVar = "Cannot ask servers about themselves, going on without it: %s"
    _relief: ClassVar = "Servers are asked about themselves again"

    _conversation: Conversation | None

    def __init__(self, router: Router, tls: TlsContexts) -> None:
        self._router = router
        self._tls = tls
        self._scouting = Scouting(router)
        self._is_leaving = False
        self._transport = self._new_transport()
        super().__init__(router.clock.monotonic)
        if self._due:
            router.scout = self.hear

    def hear(self, route: str) -> None:
        """Take note that a call takes a route. Costs next to nothing where nothing is due."""
        if self._monotonic() >= self._due.get(route, math.inf):
            self._send_to(route)

    def note(self, event: Event) -> None:
        """Take note of what happened: an account is used up, and may tell until when."""
        if isinstance(event, CooldownBegan) and not event.is_told:
            route = self._scouting.route_to(event.endpoint)
            if route is not None and event.code == QuotaExhausted.code:
                self._send_to(route)

    def ask_accounts(self, only: str | None = None) -> Mapping[str, OllamaBridgeError | None]:
        """Ask now, in this thread, what is left of each account; see ``Scouting``."""
        transport = self._new_transport()
        try:
            return finish(drive(self._scouting.ask_accounts(only), Conversation(transport)))
        finally:
            transport.close()

    def leave(self) -> None:
        """End the thread, whatever it waits for."""
        self._is_leaving = True
        conversation = self._conversation
        if conversation is not None:
            conversation.cancel()
        super().leave()

    def after_fork(self) -> None:
        super().after_fork()
        self._transport.after_fork()

    def _begin_again(self) -> None:
        super()._begin_again()
        self._conversation = None
        self._due = dict.fromkeys(self._scouting.routes, 0.0)

    def _new_transport(self) -> BlockingTransport:
        return BlockingTransport(len(self._router.plan.endpoints), self._tls)

    def _send_to(self, route: str) -> None:
        if self.hears(self._monotonic()) and self._is_running():
            self._due[route] = math.inf  # until it is known when
            self._asked.put(route)

    def _go(self, asked: Sequence[str | None]) -> None:
        self._conversation = Conversation(self._transport)
        for route in dict.fromkeys(asked):
            if route is not None and not self._is_leaving:
                try:
                    finish(drive(self._scouting.go(route), self._conversation))
                except Cancelled:
                    return

    def _tell(self, asked: Sequence[str | None]) -> None:
        for route in dict.fromkeys(asked):
            if route is not None:
                self._due[route] = self._scouting.due_at(route)

    def _hang_up(self) -> None:
        self._transport.close()
