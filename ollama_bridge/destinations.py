"""Where calls may go: what ENDPOINTS and ROUTES say, and what the top level makes of them.

The top level describes the endpoint ``default``, or with a key and a model of the cloud the
endpoints ``cloud`` and ``local`` and the route ``default``. What the settings name themselves is
never replaced, and what it leaves out is found where it would be found without it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from .core.names import CLOUD, LOCAL, MAIN
from .hosts import server_of
from .resolution import INHERITED, NOTHING, Findings, Problem, names_of, resolve
from .tables import (
    HOMES,
    OLLAMA_COM,
    EndpointSettings,
    RouteSettings,
    ServerSettings,
    pair_of,
)

_SHARED: Final = frozenset(names_of(ServerSettings))
_NEVER_SHARED: Final = frozenset({"BASE_URL", "API_KEY", "HEADERS"})
# Names that mean the server of the top level, unless they say another one.
_AT_THE_TOP: Final = frozenset({MAIN, LOCAL})


def destinations(top: Findings) -> tuple[dict[str, Findings], dict[str, Findings]]:
    """Return the endpoints and the routes: those that are written, and those that are made."""
    written = top.values.get("ENDPOINTS", NOTHING)
    endpoints = {name: _written(name, each, top) for name, each in written.items()}
    # Routes to endpoints of which nothing is known would all be wrong.
    named = top.values.get("ROUTES", NOTHING) if "ENDPOINTS" in top.values else NOTHING
    routes = {name: _route(name, each, top) for name, each in named.items()}
    at_hand = _SHARED
    if is_hybrid(top):
        # The key, and what its account allows, are the cloud's alone; headers are the other's.
        at_hand = _SHARED - {"API_KEY", "QUOTA_LIMIT"}
        endpoints = {CLOUD: _cloud(top), LOCAL: _endpoint(top, at_hand)} | endpoints
        if MAIN not in endpoints:
            routes = {MAIN: _route(MAIN, {"TARGETS": [CLOUD, LOCAL]}, top)} | routes
    if MAIN not in endpoints and (MAIN not in routes or aims_at(MAIN, routes.values())):
        endpoints = {MAIN: _endpoint(top, at_hand)} | endpoints
    return endpoints, routes


def _endpoint(
    top: Findings, inherits: frozenset[str], *dicts: Mapping[str, object], place: str = ""
) -> Findings:
    return resolve(EndpointSettings, dicts, place=place, above=top, inherits=inherits, homes=HOMES)


def _written(name: str, written: Mapping[str, object], top: Findings) -> Findings:
    place, inherits = f'ENDPOINTS["{name}"]', _SHARED - _NEVER_SHARED
    if name == CLOUD and is_hybrid(top):
        return _cloud(top, written, place)
    if name == LOCAL and is_hybrid(top):
        inherits -= {"QUOTA_LIMIT"}
    if name in _AT_THE_TOP:
        inherits |= {"BASE_URL"}
    return _endpoint(top, inherits, written, place=place)


def _route(name: str, written: Mapping[str, object], top: Findings) -> Findings:
    place = f'ROUTES["{name}"]'
    return resolve(RouteSettings, [written], place=place, above=top, homes=HOMES)


def is_hybrid(top: Findings) -> bool:
    return bool(top.values.get("API_KEY") and top.values.get("CLOUD_MODEL"))


def _cloud(top: Findings, written: Mapping[str, object] = NOTHING, place: str = "") -> Findings:
    """Return the endpoint that a key and a model of the cloud make, with what is written of it.

    The key goes to the server of CLOUD_ENDPOINT only: to another one goes what is written.
    """
    url = top.values.get("CLOUD_ENDPOINT", OLLAMA_COM)
    own = {"BASE_URL": url, "MODEL": top.values["CLOUD_MODEL"], **_half(top)}
    found = _endpoint(top, _SHARED - {"HEADERS"}, written, own, place=place)
    found.origins.update(dict.fromkeys(own.keys() - written.keys(), INHERITED))
    address = found.values.get("BASE_URL", url)
    if found.origins.get("API_KEY") == INHERITED and server_of(address) != server_of(url):
        found.values["API_KEY"] = None
        if "CLOUD_ENDPOINT" in top.values:  # else that is what is told
            found.problems.append(_astray(found, top))
    return found


def _astray(cloud: Findings, top: Findings) -> Problem:
    return Problem(
        cloud.path("API_KEY"),
        f"{cloud.path('BASE_URL')} is another server than CLOUD_ENDPOINT, and "
        f"{top.label('API_KEY')} does not go there.",
        f'Type the key of that server, or None, as "API_KEY" in {cloud.place}. If it is that of '
        "the top level, type the address as CLOUD_ENDPOINT, and no BASE_URL.",
    )


def _half(top: Findings) -> dict[str, object]:
    """Let a cloud that says nothing leave the other server half of the time."""
    return {"TIMEOUT": top.values["TIMEOUT"] / 2} if "TIMEOUT" in top.values else {}


def aims_at(endpoint: str, routes: Iterable[Findings]) -> bool:
    return any(
        pair_of(target)[0] == endpoint
        for route in routes
        for target in route.values.get("TARGETS", ())
    )
