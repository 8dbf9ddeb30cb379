"""Whether the endpoints and routes of the settings make sense together, and what does nothing."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from .core.names import CLOUD, LOCAL, MAIN
from .core.strategies import STRATEGIES
from .destinations import aims_at, destinations, is_hybrid
from .hosts import is_loopback
from .resolution import CODE, DEFAULT, INHERITED, NOTHING, Findings, Problem
from .tables import HEEDLESS, NOT_ABOVE, OLLAMA_COM, pair_of

# Headers that let whoever reads them pose as this site.
_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "x-api-key", "cookie"})


def settle(top: Findings) -> None:
    """Replace ENDPOINTS and ROUTES, as they are written, by the values of each that there is.

    What is wrong with them, or with the top level as a server, is added to its problems; if
    nothing is, what does nothing is added to its warnings.
    """
    endpoints, routes = destinations(top)
    top.problems.extend(_problems(top, endpoints, routes))
    if not top.problems:
        top.warnings.extend(_warnings(top, endpoints, routes))
        for found in routes.values():
            found.values["WEIGHTS"] = _weights(found, endpoints)
    top.values["ENDPOINTS"] = {name: found.values for name, found in endpoints.items()}
    top.values["ROUTES"] = {name: found.values for name, found in routes.items()}


def _problems(
    top: Findings, endpoints: Mapping[str, Findings], routes: Mapping[str, Findings]
) -> Iterator[Problem]:
    yield from _limits(top)
    yield from _keyless(top)
    for name, found in endpoints.items():
        yield from found.problems
        yield from _limits(found)
        yield from _unaddressed(name, found)
        yield from _exposed(name, found)
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


def _exposed(name: str, found: Findings) -> Iterator[Problem]:
    """Refuse keys that others on the network could read, on their way to the server or proxy."""
    url, proxy = found.values.get("BASE_URL", ""), found.values.get("PROXY")
    if not url.startswith("http://") or (is_loopback(url) and is_loopback(proxy or url)):
        return
    is_made = found.origins["BASE_URL"] == INHERITED
    address = "CLOUD_ENDPOINT" if name == CLOUD and is_made else "BASE_URL"
    for setting, part in _keys_of(found):
        what = f"{setting}{part}"
        yield Problem(
            found.path(setting),
            f"{found.label(setting)}{part} would travel over plain http to another machine.",
            f"Type an https:// address for {address}, or use a tunnel on 127.0.0.1, or no {what}.",
            kind="exposed",
        )


def _keys_of(found: Findings) -> Iterator[tuple[str, str]]:
    """Give each setting that holds a key, and where in it, such as ``["Cookie"]``."""
    if found.values.get("API_KEY"):
        yield "API_KEY", ""
    for header in found.values.get("HEADERS", NOTHING):
        if header.lower() in _CREDENTIALS:
            yield "HEADERS", f'["{header}"]'


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
    path, targets = found.path("WEIGHTS"), found.values.get("TARGETS", ())
    own, strategy = found.values.get("WEIGHTS", NOTHING), found.values.get("STRATEGY")
    if own and strategy in HEEDLESS:
        heeding = _listed(each for each in STRATEGIES if each not in HEEDLESS)
        message = f'{path} has no effect: the strategy "{strategy}" does not look at weights.'
        yield Problem(path, message, f'Type one of {heeding} as "STRATEGY", or no WEIGHTS.')
    for target in own:
        if targets and target not in targets:
            message = f'{path} has "{target}", which is none of the TARGETS.'
            yield Problem(path, message, _nearest(target, targets))


def _warnings(
    top: Findings, endpoints: Mapping[str, Findings], routes: Mapping[str, Findings]
) -> Iterator[Problem]:
    if is_hybrid(top) and not aims_at(CLOUD, routes.values()):
        yield _cloudless(top)
    if MAIN not in top.values["ENDPOINTS"] and MAIN not in top.values["ROUTES"]:
        yield from _bypassed(top, routes)
    for name in ("BASE_URL", "API_KEY", "HEADERS"):
        if _is_said(name, top):
            yield from _unused(name, top, endpoints)
    if top.origins["CLOUD_ENDPOINT"] != DEFAULT and not top.values["CLOUD_MODEL"]:
        yield from _nowhere(top, endpoints)


def _cloudless(top: Findings) -> Problem:
    """Tell of a cloud that no route leads to, because the settings name what serves by default."""
    hint = f'Type "{CLOUD}" in the TARGETS of ROUTES["{MAIN}"], or remove CLOUD_MODEL.'
    if MAIN in top.values["ENDPOINTS"]:
        hint = (
            f'Type another name for ENDPOINTS["{MAIN}"], such as "{LOCAL}", so that calls go to '
            "the cloud first and then there, or remove CLOUD_MODEL."
        )
    message = f"{top.label('CLOUD_MODEL')} is never asked by calls that name no endpoint: no route"
    return Problem("CLOUD_MODEL", f"{message} leads to the cloud.", hint, kind="bypassed")


def _bypassed(top: Findings, routes: Mapping[str, Findings]) -> Iterator[Problem]:
    """Tell of endpoints that calls pass by, where nothing says what serves by default."""
    made = [CLOUD, LOCAL] if is_hybrid(top) else []
    own = [name for name in top.values["ENDPOINTS"] if name not in made]
    is_meant = made or top.origins["BASE_URL"] != DEFAULT or aims_at(MAIN, routes.values())
    if is_meant:  # to serve by default: the others may have routes of their own
        own = [name for name in own if not aims_at(name, routes.values())]
    if own:
        targets = _listed([*made, *own] if made else own[:1])
        yield Problem(
            "ENDPOINTS",
            f"Calls that name no endpoint go to {' and '.join(made) or 'BASE_URL'}, "
            f"not to {', '.join(own)}.",
            f'Type "ROUTES": {{"{MAIN}": {{"TARGETS": [{targets}]}}}}.',
            kind="bypassed",
        )


def _is_said(name: str, top: Findings) -> bool:
    """Tell whether the top level has this for the site, and it is not heeded anyhow."""
    if name == "API_KEY":
        return bool(top.values[name]) and not is_hybrid(top)
    # OLLAMA_HOST may be there for other programs.
    return bool(top.values[name]) and top.origins[name] == CODE


def _unused(name: str, top: Findings, endpoints: Mapping[str, Findings]) -> Iterator[Problem]:
    """Tell of what no endpoint has from the top level, because each has its own or none."""
    if all(found.values[name] != top.values[name] for found in endpoints.values()):
        place = f'ENDPOINTS["{next(iter(top.values["ENDPOINTS"]))}"]'
        yield Problem(
            name,
            f"{top.label(name)} has no effect: no endpoint takes it from the top level.",
            f'Type "{name}" in the endpoint that it is for, such as {place}, or remove it.',
            kind="idle",
        )


def _nowhere(top: Findings, endpoints: Mapping[str, Findings]) -> Iterator[Problem]:
    """Tell of an address of the cloud where nobody goes."""
    url = top.values["CLOUD_ENDPOINT"]
    if all(found.values["BASE_URL"] != url for found in endpoints.values()):
        yield Problem(
            "CLOUD_ENDPOINT",
            f"{top.label('CLOUD_ENDPOINT')} has no effect without CLOUD_MODEL.",
            'Type "CLOUD_MODEL": "gpt-oss:120b", with an API_KEY, or remove it.',
            kind="idle",
        )


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
