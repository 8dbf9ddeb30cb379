"""Which honest answer belongs to which request."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit

from . import catalogue, embeddings, gojson, inference
from .account import FakeAccount
from .gojson import RefusalError
from .outgoing import BARE_JSON, TEXT, Reply, error_reply, json_reply, plain
from .recorded import RecordedRequest
from .world import World

Asked = Callable[[World], Reply]
Told = Callable[[World, Mapping[str, Any]], Reply]

BALANCE = "/api/balance"
_OWN_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


def answer(world: World, request: RecordedRequest) -> Reply:
    """Return what a server in good health answers."""
    if not _host_allowed(request) or not _origin_allowed(request.headers):
        return plain(403, b"", None)
    if world.account is not None and (refusal := _keyless(world.account, request)):
        return refusal
    if request.path == BALANCE and world.account is None:  # as at any server but the cloud
        return plain(404, b"404 page not found")
    if request.path in _GETS:
        allowed: tuple[str, ...] = ("GET", "HEAD")
    elif request.path in _POSTS:
        allowed = ("POST",)
    else:
        return plain(404, b"404 page not found")
    if request.method not in allowed:
        return Reply(405, (b"405 method not allowed",), TEXT, (("Allow", ", ".join(allowed)),))
    return _served(world, request)


def _keyless(account: FakeAccount, request: RecordedRequest) -> Reply | None:
    """Return the refusal of a request that needs the account's key and has not got it."""
    is_public = request.path in _GETS and request.path != BALANCE
    if is_public or account.admits(request.headers):
        return None
    return plain(401, b"unauthorized\n", "text/plain; charset=utf-8")


def _served(world: World, request: RecordedRequest) -> Reply:
    if request.path in _GETS:
        return _GETS[request.path](world)
    serve, struct = _POSTS[request.path]
    try:
        return serve(world, gojson.load(request.body, struct))
    except RefusalError as refusal:
        return refused(refusal)


def refused(refusal: RefusalError) -> Reply:
    """Return the server's reply to a request that it refuses."""
    if not refusal.streamed:
        return error_reply(refusal.status, refusal.text)
    body = gojson.dump({"error": refusal.text})
    return Reply(refusal.status, (body,), BARE_JSON, chunked=True)


def _root(_world: World) -> Reply:
    return plain(200, b"Ollama is running", "text/plain; charset=utf-8")


def _version(world: World) -> Reply:
    return json_reply({"version": world.version})


def _tags(world: World) -> Reply:
    return json_reply({"models": [catalogue.tag(model) for model in world.models.values()]})


def _ps(world: World) -> Reply:
    return json_reply({"models": world.loaded()})


def _balance(world: World) -> Reply:
    return json_reply(None if world.account is None else world.account.balance)


def _show(world: World, fields: Mapping[str, Any]) -> Reply:
    name = inference.required_model({"model": fields.get("model") or fields.get("name")})
    return json_reply(catalogue.show(world.find(name)))


_GETS: dict[str, Asked] = {
    "/": _root,
    "/api/version": _version,
    "/api/tags": _tags,
    "/api/ps": _ps,
    BALANCE: _balance,
}
_POSTS: dict[str, tuple[Told, str]] = {
    "/api/chat": (inference.chat, "api.ChatRequest"),
    "/api/generate": (inference.generate, "api.GenerateRequest"),
    "/api/show": (_show, "api.ShowRequest"),
    "/api/embed": (embeddings.embed, "api.EmbedRequest"),
    "/api/embeddings": (embeddings.legacy, "api.EmbeddingRequest"),
}


def _host_allowed(request: RecordedRequest) -> bool:
    """Refuse foreign names, as a server on loopback does against DNS rebinding."""
    host = request.headers.get("host", "")
    if host.startswith("127.0.0.1") or not host or not request.target.startswith("/"):
        return True
    return _local(urlsplit(f"//{host}").hostname or "")


def _local(name: str) -> bool:
    if name in ("", "localhost") or name.endswith(_LOCAL_SUFFIXES):
        return True
    address = _address(name)
    return address is not None and (address.is_private or address.is_unspecified)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _origin_allowed(headers: Mapping[str, str]) -> bool:
    origin = headers.get("origin")
    if not origin:
        return True
    parts = urlsplit(origin)
    if parts.scheme in _OWN_SCHEMES or parts.netloc == headers.get("host"):
        return True
    address = _address(parts.hostname or "")
    return parts.hostname == "localhost" or (
        address is not None and (address.is_loopback or address.is_unspecified)
    )
