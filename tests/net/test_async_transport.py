"""The transport of async calls and of streams: what holds for ``chat`` holds for them.

Most of the tests here were written for ``chat``, and run with other clients.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import InvalidReply, OllamaClient, Timeout
from ollama_bridge.testing import FakeOllama, faults, when
from ollama_bridge.testing.faults.stream import split
from tests.client.test_wire import (  # noqa: F401  # collected here too
    secure,
    test_a_base_url_may_have_a_path,
    test_a_basic_authorization_may_be_a_header,
    test_a_certificate_for_another_host_is_refused,
    test_a_certificate_of_an_unknown_authority_is_refused,
    test_a_client_for_another_server_does_not_take_the_key_and_headers_of_the_settings,
    test_a_connection_that_was_dropped_behind_a_proxy_is_replaced_too,
    test_a_handshake_that_the_server_ends_is_a_dropped_connection,
    test_a_host_may_be_a_header_as_proxies_need_it,
    test_a_proxy_may_speak_tls_itself,
    test_a_proxy_of_the_settings_gets_plain_requests,
    test_a_proxy_that_does_not_run_is_said_to_be_one,
    test_a_proxy_that_refuses_the_tunnel_is_said_to_be_one,
    test_a_proxy_whose_name_has_no_address_is_said_to_be_one,
    test_a_redirect_is_not_followed,
    test_a_reply_that_comes_before_the_request_was_read_is_heard,
    test_a_request_has_these_headers_and_no_others,
    test_a_server_that_closes_after_each_reply_and_says_so_is_believed,
    test_a_tunnel_hides_everything_from_the_proxy,
    test_a_tunnel_may_lead_through_tls,
    test_a_tunnel_that_was_dropped_is_dug_again,
    test_cookies_are_not_kept,
    test_headers_of_the_settings_go_along,
    test_http_to_a_server_that_speaks_tls_is_a_failure_of_the_connection_or_no_http,
    test_https_to_a_server_that_speaks_http_is_no_secure_connection,
    test_it_is_told_who_we_are,
    test_its_connections_are_kept_too,
    test_localhost_and_ipv6_are_hosts_too,
    test_netrc_is_not_read,
    test_nor_through_a_proxy_that_could_read_it,
    test_proxies_of_the_environment_are_ignored,
    test_so_does_a_folder_of_authorities,
    test_the_key_goes_to_its_server,
    test_the_key_never_goes_over_plain_http_to_another_machine,
    test_the_path_of_the_authority_makes_it_known,
    test_without_verification_any_certificate_will_do,
)
from tests.net import otherforms
from tests.net.held import Held
from tests.net.rawserver import RawServer, read_request
from tests.net.test_deadlines import (  # noqa: F401  # collected here too
    test_a_connect_ends_with_the_deadline_too,
    test_a_deadline_that_has_passed_leaves_no_socket_behind,
    test_a_drip_does_not_outlive_the_deadline,
    test_a_drip_inside_a_record_of_tls_does_not_either,
    test_a_dripping_handshake_ends_with_the_deadline,
    test_a_large_request_to_a_server_that_hardly_reads_ends_with_the_deadline,
    test_a_proxy_that_does_not_answer_a_connect_is_a_connect_timeout,
    test_a_proxy_that_drips_does_not_outlive_the_deadline,
    test_a_silent_handshake_ends_with_the_connect_timeout,
    test_a_slow_tunnel_and_a_silent_handshake_share_the_deadline,
    test_all_addresses_of_a_host_share_the_connect_timeout,
    test_nor_in_the_last_of_several_attempts,
    test_nor_on_a_connection_that_was_kept,
    test_nor_over_tls,
    test_waits_between_attempts_end_before_the_deadline,
)

if TYPE_CHECKING:
    from ollama_bridge.streams import AsyncChatStream
    from ollama_bridge.testing.exchange import Exchange
    from tests.conftest import MakeClient


@pytest.fixture(params=otherforms.FORMS, ids=lambda kind: kind.__name__.lower())
def make_client(request: pytest.FixtureRequest, fake_ollama: FakeOllama) -> Iterator[MakeClient]:
    """Return a maker of clients whose ``chat`` is another form of a call."""
    with otherforms.clients(request.param, fake_ollama) as make:
        yield make


# What only these forms have, or aiohttp.


async def until(server: FakeOllama, predicate: Any) -> None:
    await asyncio.to_thread(server.wait_for, predicate)


def test_calls_and_streams_read_to_their_end_share_a_kept_connection(
    fake_ollama: FakeOllama,
) -> None:
    async def go() -> None:
        async with OllamaClient(base_url=fake_ollama.url) as client:
            for _ in range(3):
                assert await client.achat("What is water?")
                async with client.astream("What is ice?") as chunks:
                    assert [chunk async for chunk in chunks]
            assert fake_ollama.connections == 1

    asyncio.run(go())
    assert [request.turn for request in fake_ollama.chats] == [1, 2, 3, 4, 5, 6]


def test_an_idle_connection_that_was_closed_is_replaced_unnoticed(fake_ollama: FakeOllama) -> None:
    fake_ollama.misbehave(faults.CloseAfterReply())

    async def go() -> None:
        async with OllamaClient(base_url=fake_ollama.url, max_retries=0) as client:
            for _ in range(5):
                assert len((await client.achat("What is water?")).attempts) == 1
                await until(fake_ollama, lambda server: server.open_connections == 0)

    asyncio.run(go())
    assert len(fake_ollama.chats) == 5


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_responses_are_passed_over(status: int) -> None:
    def serve(sock: socket.socket) -> None:
        while request := read_request(sock):
            assert request
            body = b'{"message":{"content":"Wet."},"done":true}'
            interim = b"HTTP/1.1 %d Wait\r\nLink: </x>; rel=preload\r\n\r\n" % status
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            sock.sendall(interim * 2 + head + body)

    async def go(url: str) -> None:
        async with OllamaClient(base_url=url) as client:
            for _ in range(3):
                assert await client.achat("What is water?") == "Wet."

    with RawServer(serve) as server:
        asyncio.run(go(server.url))
        assert server.accepted == 1


def test_a_switch_of_protocols_is_no_http_and_its_connection_not_used_again() -> None:
    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n"
            )

    async def go(url: str) -> None:
        async with OllamaClient(base_url=url, max_retries=0) as client:
            for number in (1, 2):
                with pytest.raises(InvalidReply, match="not HTTP"):
                    await client.achat("What is water?")
                assert server.accepted == number

    with RawServer(serve) as server:
        asyncio.run(go(server.url))


def test_a_large_request_is_sent_without_a_warning(fake_ollama: FakeOllama) -> None:
    async def go() -> None:
        async with OllamaClient(base_url=fake_ollama.url) as client:
            assert await client.achat("x" * 3_000_000)

    asyncio.run(go())
    gc.collect()
    assert len(fake_ollama.chats[0].body) > 3_000_000


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "a surprise"])
def test_a_reply_that_is_too_large_is_not_read(fake_ollama: FakeOllama, declared: bool) -> None:
    fake_ollama.misbehave(faults.HugeBody(10**8, declared=declared))

    async def go() -> None:
        settings: dict[str, Any] = {"max_response_bytes": 100_000, "max_retries": 0}
        async with OllamaClient(base_url=fake_ollama.url, **settings) as client:
            with pytest.raises(InvalidReply, match="MAX_RESPONSE_BYTES"):
                await client.achat("What is water?")
            await until(fake_ollama, lambda server: len(server.disconnects) == 1)
            fake_ollama.behave()
            assert await client.achat("What is ice?")

    asyncio.run(go())


def test_a_deadline_that_has_passed_sends_nothing_on_a_kept_connection(
    fake_ollama: FakeOllama,
) -> None:
    async def go() -> None:
        async with OllamaClient(base_url=fake_ollama.url) as client:
            await client.achat("What is ice?")
            with pytest.raises(Timeout):
                await client.achat("What is water?", timeout=1e-9)

    asyncio.run(go())
    assert [request.prompt for request in fake_ollama.chats] == ["What is ice?"]


def test_a_server_that_breaks_while_many_wait_fails_each_of_them_once(
    fake_ollama: FakeOllama,
) -> None:
    fake_ollama.misbehave(faults.Stall(0.2), when=when.first(50))

    async def go() -> list[Any]:
        settings: dict[str, Any] = {"max_retries": 0, "circuit_breaker": False}
        async with OllamaClient(base_url=fake_ollama.url, **settings) as client:
            calls = [asyncio.create_task(client.achat(f"{number}")) for number in range(50)]
            await until(fake_ollama, lambda server: server.in_flight == 50)
            await asyncio.to_thread(fake_ollama.refuse)
            return await asyncio.gather(*calls, return_exceptions=True)

    ended = asyncio.run(go())
    assert {getattr(error, "code", "") for error in ended} == {"connection_failed"}


def test_a_burst_leaves_its_connections_to_the_next(fake_ollama: FakeOllama) -> None:
    async def at_once(client: OllamaClient) -> None:
        held = Held()
        fake_ollama.behave()
        fake_ollama.misbehave(held)
        calls = [asyncio.create_task(client.achat("What is water?")) for _ in range(8)]
        await until(fake_ollama, lambda server: server.in_flight == 8)
        held.let_go()
        await asyncio.gather(*calls)

    async def go() -> None:
        async with OllamaClient(base_url=fake_ollama.url, pool_maxsize=3) as client:
            await at_once(client)
            await at_once(client)
            assert fake_ollama.connections == 8  # POOL_MAXSIZE is for calls that are not async

    asyncio.run(go())


class OneByOne:
    """Sends the first piece of a stream, and each further one when the test says so."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.sent = threading.Semaphore(0)

    async def reply(self, exchange: Exchange) -> None:
        first, others = split(exchange.honest(), 1)
        await exchange.send_parts(first)
        for part in others:
            while not self.asked.acquire(blocking=False):
                await exchange.sleep(0.002)
            exchange.write(exchange.framing.part(first, part))
            await exchange.drain()
            self.sent.release()
        await exchange.send_rest(first, ())


def test_what_came_while_the_loop_was_busy_is_no_silence() -> None:
    slowly = OneByOne()

    async def go(server: FakeOllama) -> None:
        async with OllamaClient(base_url=server.url, chunk_timeout=0.3) as client:
            async with client.astream("What is water?") as chunks:
                text: str = await anext(chunks)
                reading = asyncio.create_task(read(chunks))
                await asyncio.sleep(0)  # it waits now, and no longer than CHUNK_TIMEOUT
                slowly.asked.release()
                slowly.sent.acquire()  # which holds up the loop
                time.sleep(0.3)  # noqa: ASYNC251  # still
                slowly.asked.release(3)
                text += await reading
            assert text == "Water is wet."
            assert client.get_stats()["errors"] == {}

    with FakeOllama(answer="Water is wet.") as server:
        server.misbehave(slowly)
        asyncio.run(go(server))


async def read(chunks: AsyncChatStream) -> str:
    return "".join([chunk async for chunk in chunks])
