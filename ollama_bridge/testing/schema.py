"""JSON schemas: is this one, and what would an answer to it look like."""

from collections.abc import Mapping
from typing import Any, TypeGuard

Schema = Mapping[str, Any]

_PLAIN: dict[str, object] = {
    "string": "simulated",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "null": None,
}
_TYPES = {*_PLAIN, "object", "array"}
_DEPTH = 12
"""Deep enough for real schemas; ends schemas that refer to themselves."""


def valid(schema: object, root: Schema) -> bool:
    """Tell whether the server could turn `schema` into a grammar."""
    if not is_schema(schema):
        return isinstance(schema, bool)
    if "$ref" in schema:
        return resolve(schema["$ref"], root) is not None
    if not _TYPES.issuperset(_types(schema)):
        return False
    return all(valid(part, root) for part in _parts(schema))


def is_schema(value: object) -> TypeGuard[Schema]:
    return isinstance(value, dict)


def resolve(reference: str, root: Schema) -> Schema | None:
    """Return what a `#/…` reference means, None where there is nothing."""
    target: object = root
    for step in filter(None, reference.removeprefix("#").split("/")):
        target = target.get(step) if is_schema(target) else None
    return target if is_schema(target) else None


def sample(schema: Schema, root: Schema, depth: int = _DEPTH) -> object:
    """Return the plainest value that fits a valid schema."""
    if depth == 0:
        return None
    if "$ref" in schema:
        return sample(resolve(schema["$ref"], root) or {}, root, depth - 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], root, depth - 1)
    return _typed(schema, root, depth - 1)


def _typed(schema: Schema, root: Schema, depth: int) -> object:
    kind = next(iter(_types(schema)), "object")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: sample(part, root, depth) for name, part in properties.items()}
    if kind == "array":
        return [sample(schema.get("items", {"type": "string"}), root, depth)]
    return _PLAIN[kind]


def _types(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _parts(schema: Schema) -> list[object]:
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    return [*parts, schema["items"]] if "items" in schema else parts
