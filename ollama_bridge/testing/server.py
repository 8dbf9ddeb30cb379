"""`FakeOllama`: an Ollama server for tests, true to the wire, that misbehaves on command."""

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Self

from . import catalogue, replies
from .account import FakeAccount
from .catalogue import FakeModel
from .connection import Fault, Host
from .engine import Engine
from .ledger import Ledger
from .recorded import RecordedRequest
from .when import Predicate
from .world import Answer, World


@dataclass(frozen=True, slots=True)
class _Rule:
    fault: Fault
    when: Predicate | None
    path: str | None

    def takes(self, request: RecordedRequest) -> bool:
        if self.path is not None and self.path != request.path:
            return False
        return self.when is None or self.when(request)


class FakeOllama:
    """An Ollama server on a real socket, in a thread of its own.

    Use it as a context manager, or call `start()` and `stop()`. All methods and properties may be
    used from any thread.

    Args:
        models: Names of the installed models, or `FakeModel` objects.
        answer: What the model says: a text, or a function from the prompt to the text, which runs
            in the server's thread and must not block. None: the simulator's own friendly text.
        host: The address to listen on.
        port: The port; 0 takes a free one, which then stays the same until the object is gone.
        tokens_per_second: The model's speed; None: everything at once.
        version: What `/api/version` says.
        account: Be the cloud: its key is needed, and `/api/balance` tells what is left.
        tls: Serve https with this context.
        keep_requests: False forgets requests after they were counted (for long runs).
        on_request: Called in the server's thread with each request and the fault that it meets.
    """

    def __init__(
        self,
        *,
        models: Iterable[str | FakeModel] = ("llama3.2",),
        answer: str | Answer | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens_per_second: float | None = None,
        version: str = "0.24.0",
        account: FakeAccount | None = None,
        tls: ssl.SSLContext | None = None,
        keep_requests: bool = True,
        on_request: Callable[[RecordedRequest, Fault | None], None] | None = None,
    ) -> None:
        self._world = World(
            catalogue.named(models),
            (lambda _prompt: answer) if isinstance(answer, str) else answer,
            tokens_per_second,
            version,
            account,
        )
        self._ledger = Ledger(keep=keep_requests)
        self._host = Host(self._ledger, self._fault_for, partial(replies.answer, self._world))
        self._scheme = "http" if tls is None else "https"
        self._engine = Engine(self._host, (host, port), tls)
        self._on_request = on_request
        self._rules: tuple[_Rule, ...] = ()

    def start(self) -> Self:
        """Listen.

        Raises:
            OSError: the port is taken.
            RuntimeError: it runs already.
        """
        self._engine.start()
        return self

    def stop(self) -> None:
        """End all connections and the thread; counters and requests stay readable.

        Raises:
            RuntimeError: an answer, a predicate or a fault of the test failed meanwhile.
        """
        self._engine.stop()
        if self._engine.errors:
            error = self._engine.errors.pop(0)
            raise RuntimeError(f"an answer, predicate or fault of FakeOllama failed: {error!r}")

    def __enter__(self) -> Self:
        return self if self._engine.running else self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._engine.stop()

    def __repr__(self) -> str:
        state = "listening" if self._host.listening else "refusing"
        return (
            f"<FakeOllama {self.url} {state}: {self._ledger.received} requests, "
            f"{self.in_flight} in flight, {len(self.disconnects)} left by their client, "
            f"{self.open_connections} of {self.connections} connections open>"
        )

    @property
    def url(self) -> str:
        host, port = self._engine.address
        return (
            f"{self._scheme}://[{host}]:{port}"
            if ":" in host
            else f"{self._scheme}://{host}:{port}"
        )

    @property
    def port(self) -> int:
        """The port; known once the server was started."""
        return self._engine.address[1]

    def misbehave(
        self, fault: Fault, *, when: Predicate | None = None, path: str | None = "/api/chat"
    ) -> None:
        """Add a rule. The first rule that takes a request decides; without one it is answered.

        Args:
            fault: What to do, from `ollama_bridge.testing.faults`.
            when: Which requests, from `ollama_bridge.testing.when`; None: all.
            path: On which path; None: on all.
        """
        self._rules = (*self._rules, _Rule(fault, when, path))

    def behave(self) -> None:
        """Forget all rules; what has begun goes on."""
        self._rules = ()

    def install(self, *models: str | FakeModel) -> None:
        """Have these models too, as after `ollama pull`."""
        self._world.models = {**self._world.models, **catalogue.named(models)}

    def remove(self, *names: str) -> None:
        """Have these models no more, as after `ollama rm`."""
        gone = set(map(catalogue.find_key, names))
        kept = {key: model for key, model in self._world.models.items() if key not in gone}
        self._world.models = kept

    @property
    def account(self) -> FakeAccount | None:
        """The account whose key is needed here; another one may take its place at any time."""
        return self._world.account

    @account.setter
    def account(self, account: FakeAccount | None) -> None:
        self._world.account = account

    def refuse(self) -> None:
        """Be a killed server: reset all connections and refuse new ones, until `listen()`."""
        self._engine.refuse()

    def listen(self) -> None:
        """Come back on the same port."""
        self._engine.listen()

    def wait_for(self, predicate: Callable[["FakeOllama"], bool], timeout: float = 5.0) -> None:
        """Wait until `predicate(self)` is true; it is asked after every change.

        Args:
            predicate: What to wait for.
            timeout: Seconds.

        Raises:
            TimeoutError: it did not become true; the message tells what did happen.
        """
        with self._ledger.changed:
            if not self._ledger.changed.wait_for(lambda: predicate(self), timeout):
                raise TimeoutError(f"not within {timeout} s: {self!r}")

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, oldest first."""
        with self._ledger.changed:
            return list(self._ledger.requests)

    @property
    def chats(self) -> list[RecordedRequest]:
        """The requests for `/api/chat`."""
        return [request for request in self.requests if request.path == "/api/chat"]

    @property
    def disconnects(self) -> list[RecordedRequest]:
        """Requests whose client left before its reply was complete."""
        with self._ledger.changed:
            return list(self._ledger.disconnects)

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._ledger.connections

    @property
    def open_connections(self) -> int:
        return self._ledger.open_connections

    @property
    def in_flight(self) -> int:
        """Requests that came and are not answered yet."""
        return self._ledger.in_flight

    @property
    def peak_in_flight(self) -> int:
        return self._ledger.peak_in_flight

    def _fault_for(self, request: RecordedRequest) -> Fault | None:
        found = next((rule.fault for rule in self._rules if rule.takes(request)), None)
        if self._on_request is not None:
            self._on_request(request, found)
        return found
