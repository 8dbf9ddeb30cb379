"""Where calls may go: what ENDPOINTS and ROUTES say, and what the top level makes of them.

The top level describes the endpoint ``default``, or with a key and a model of the cloud the
endpoints ``cloud`` and ``local`` and the route ``default``. What the settings name themselves is
never replaced.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from .hosts import is_loopback
from .resolution import CODE, DEFAULT, INHERITED, NOTHING, Findings, Problem, names_of, resolve
from .tables import (
    NOT_ABOVE,
    OLLAMA_COM,
    EndpointSettings,
    RouteSettings,
    ServerSettings,
    pair_of,
)

MAIN: Final = "default"
"""The route that serves calls which name none, and the endpoint, if there is no such route."""

CLOUD: Final = "cloud"
LOCAL: Final = "local"

_SHARED: Final = frozenset(names_of(ServerSettings))
_NEVER_SHARED: Final = frozenset({"BASE_URL", "API_KEY", "HEADERS"})
# Names that mean the server of the top level, unless they say another one.
_AT_THE_TOP: Final = frozenset({MAIN, LOCAL})


def settle(top: Findings) -> None:
    """Replace ENDPOINTS and ROUTES, as they are written, by the values of each that there is.

    What is wrong with them, or with the top level as a server, is added to its problems.
    """
    written = top.values.get("ENDPOINTS", NOTHING)
    endpoints = {name: _written(name, each, top) for name, each in written.items()}
    # Routes to endpoints of which nothing is known would all be wrong.
    named = top.values.get("ROUTES", NOTHING) if "ENDPOINTS" in top.values else NOTHING
    routes = {name: _route(name, each, top) for name, each in named.items()}
    if _is_hybrid(top):
        endpoints = _hybrid(top) | endpoints
        if MAIN not in endpoints:
            routes = {MAIN: _route(MAIN, {"TARGETS": [CLOUD, LOCAL]}, top)} | routes
    if MAIN not in endpoints and (MAIN not in routes or _aims_at(MAIN, routes.values())):
        endpoints = {MAIN: _made(top, _SHARED)} | endpoints
    top.problems.extend(_problems(top, endpoints, routes))
    if not top.problems:
        for found in routes.values():
            found.values["WEIGHTS"] = _weights(found, endpoints)
    top.values["ENDPOINTS"] = {name: found.values for name, found in endpoints.items()}
    top.origins.update({found.place: CODE for found in endpoints.values() if found.place})
    top.values["ROUTES"] = {name: found.values for name, found in routes.items()}


def _written(name: str, written: Mapping[str, object], top: Findings) -> Findings:
    inherits = _SHARED - _NEVER_SHARED
    if name in _AT_THE_TOP:
        inherits |= {"BASE_URL"}
    place = f'ENDPOINTS["{name}"]'
    return resolve(EndpointSettings, [written], place=place, above=top, inherits=inherits)


def _made(top: Findings, inherits: frozenset[str], **own: object) -> Findings:
    return resolve(EndpointSettings, [own], above=top, inherits=inherits)


def _route(name: str, written: Mapping[str, object], top: Findings) -> Findings:
    return resolve(RouteSettings, [written], place=f'ROUTES["{name}"]', above=top)


def _is_hybrid(top: Findings) -> bool:
    return bool(top.values.get("API_KEY") and top.values.get("CLOUD_MODEL"))


def _hybrid(top: Findings) -> dict[str, Findings]:
    """Return the endpoints that a key and a model of the cloud make.

    The key, and what its account allows, are the cloud's alone; headers are the other's.
    """
    url = top.values.get("CLOUD_ENDPOINT", OLLAMA_COM)
    model = top.values["CLOUD_MODEL"]
    return {
        CLOUD: _made(top, _SHARED - {"HEADERS"}, BASE_URL=url, MODEL=model, **_half(top)),
        LOCAL: _made(top, _SHARED - {"API_KEY", "QUOTA_LIMIT"}),
    }


def _half(top: Findings) -> dict[str, object]:
    """Let a cloud that says nothing leave the other server half of the time."""
    return {"TIMEOUT": top.values["TIMEOUT"] / 2} if "TIMEOUT" in top.values else {}


def _aims_at(endpoint: str, routes: Iterable[Findings]) -> bool:
    return any(
        pair_of(target)[0] == endpoint
        for route in routes
        for target in route.values.get("TARGETS", ())
    )


def _problems(
    top: Findings, endpoints: Mapping[str, Findings], routes: Mapping[str, Findings]
) -> Iterator[Problem]:
    yield from _limits(top)
    yield from _keyless(top)
    for name, found in endpoints.items():
        yield from found.problems
        yield from _limits(found)
        yield from _unaddressed(name, found)
        yield from _exposed_key(name, found)
    for name, found in routes.items():
        yield from found.problems
        yield from _clash(name, found, endpoints)
        yield from _targets(found, endpoints)
        yield from _weighted(found)


def _limits(found: Findings) -> Iterator[Problem]:
    """Let what nobody set here follow a lower limit, so that ``TIMEOUT=3`` is enough."""
    values, origins = found.values, found.origins
    for low, high in NOT_ABOVE:
        if low not in values or high not in values or values[low] <= values[high]:
            continue
        if origins[low] in {DEFAULT, INHERITED}:
            values[low] = values[high]
        else:
            yield Problem(
                found.path(low),
                f"{found.label(low)} must not exceed {high}: "
                f"{values[low]:g} is more than {values[high]:g}.",
                f"Type at most {values[high]:g} for {low}, or more for {high}.",
            )


def _keyless(top: Findings) -> Iterator[Problem]:
    if top.values.get("CLOUD_MODEL") and top.values.get("API_KEY", "wrong") is None:
        yield Problem(
            "CLOUD_MODEL",
            f"{top.label('CLOUD_MODEL')} needs an API_KEY.",
            "Set OLLAMA_API_KEY to a key of the cloud. Or sign in with: ollama signin, and type "
            '"MODEL": "gpt-oss:120b-cloud" in place of CLOUD_MODEL, so that your own server asks.',
        )


def _unaddressed(name: str, found: Findings) -> Iterator[Problem]:
    if found.place and found.origins.get("BASE_URL") == DEFAULT:
        example = OLLAMA_COM if name == CLOUD else "http://10.0.0.5:11434"
        yield Problem(
            found.path("BASE_URL"),
            f"{found.place} has no BASE_URL.",
            f'Type for example "BASE_URL": "{example}".',
        )


def _exposed_key(name: str, found: Findings) -> Iterator[Problem]:
    """Refuse a key that others on the network could read, on its way to the server or proxy."""
    url, proxy = found.values.get("BASE_URL", ""), found.values.get("PROXY")
    if not found.values.get("API_KEY") or not url.startswith("http://"):
        return
    if not is_loopback(url) or not is_loopback(proxy or url):
        address = "CLOUD_ENDPOINT" if name == CLOUD and not found.place else "BASE_URL"
        yield Problem(
            found.path("API_KEY"),
            f"{found.label('API_KEY')} would travel over plain http to another machine.",
            f"Type an https:// address for {address}, or use a tunnel on 127.0.0.1, or no API_KEY.",
            kind="exposed",
        )


def _clash(name: str, found: Findings, endpoints: Mapping[str, Findings]) -> Iterator[Problem]:
    """Refuse two things of one name; only the top level's endpoint stays behind its route."""
    if name in endpoints and (name != MAIN or endpoints[name].place):
        yield Problem(
            found.place,
            f"{found.place} has the name of an endpoint.",
            "Type another name for one of the two.",
        )


def _targets(found: Findings, endpoints: Mapping[str, Findings]) -> Iterator[Problem]:
    if found.origins.get("TARGETS") == DEFAULT:
        hint = f'Type for example "TARGETS": [{_listed(endpoints)}].'
        yield Problem(found.path("TARGETS"), f"{found.place} has no TARGETS.", hint)
    label, earlier = found.path("TARGETS"), dict[tuple[str, str], str]()
    for target in found.values.get("TARGETS", ()):
        endpoint, model = pair_of(target)
        if endpoint not in endpoints:
            message = f'{label} names "{endpoint}", which is no endpoint.'
            yield Problem(label, message, _nearest(endpoint, endpoints))
            continue
        place = endpoint, model or endpoints[endpoint].values.get("MODEL", "")
        if place in earlier:
            message = f'{label} names the same model of the same endpoint twice: "{target}"'
            yield Problem(label, f'{message} after "{earlier[place]}".', f'Remove "{target}".')
        earlier[place] = target


def _weighted(found: Findings) -> Iterator[Problem]:
    targets = found.values.get("TARGETS", ())
    for target in found.values.get("WEIGHTS", NOTHING):
        if targets and target not in targets:
            path = found.path("WEIGHTS")
            message = f'{path} has "{target}", which is none of the TARGETS.'
            yield Problem(path, message, _nearest(target, targets))


def _nearest(written: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(written.lower(), known, n=1)
    if near:
        return f'Type "{near[0]}", if you mean that.'
    return f"Type one of {_listed(known)}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _weights(found: Findings, endpoints: Mapping[str, Findings]) -> dict[str, float]:
    """Return the weight of each target: its own in this route, else that of its endpoint."""
    own = found.values["WEIGHTS"]
    return {
        target: own.get(target, endpoints[pair_of(target)[0]].values["WEIGHT"])
        for target in found.values["TARGETS"]
    }
