"""Settings of a recipe: frozen dataclasses, changed by `key=value` and saved as JSON.

    settings = override(small(), ["steps=100", "lr=3e-4", "model.depth=6"])
    to_json(settings, run / "settings.json")
    settings = from_json(Settings, run / "settings.json")

A value is read by the annotation of its field: int, float, bool, str, Path, Literal, an optional of these (`none`),
a tuple (`1,2,2`), a dictionary (`video:1,audio:0.5`) or a nested dataclass (`model.depth=6`).
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class SettingsError(ValueError):
    """An unknown key or a bad value: one line that names the key and what would be right."""


def override(settings: T, changes: Iterable[str]) -> T:
    """A copy of `settings` with each `key=value` of `changes` applied, in order.

    Args:
        settings: a frozen dataclass, maybe with dataclasses inside.
        changes: texts such as `"steps=100"` or `"model.depth=6"`.

    Raises:
        SettingsError: no `=`, an unknown key (names the nearest), or a value that the field's type refuses.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise SettingsError(f"'{change}' is not a setting; write key=value")
        settings = _set(settings, key.strip().split("."), text.strip(), key.strip())
    return settings


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting under its dotted key: `{"steps": 100, "model.depth": 6}`."""
    flat: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        flat |= flatten(value, f"{prefix}{field.name}.") if is_dataclass(value) else {f"{prefix}{field.name}": value}
    return flat


def to_dict(settings: Any) -> dict[str, Any]:
    """The settings as nested dictionaries of JSON values (paths become texts, tuples lists)."""
    return {field.name: _plain(getattr(settings, field.name)) for field in fields(settings)}


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "settings") -> T:
    """The settings of dataclass `kind` from `to_dict`'s dictionary; keys left out keep their defaults.

    Raises:
        SettingsError: an unknown key (names the nearest) or a value of another type; `where` begins the line.
    """
    return _from_dict(kind, values, where, "")


def to_json(settings: Any, path: str | Path) -> Path:
    """Write the settings to `path`, which appears only when complete."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(to_dict(settings), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return part.replace(path)


def from_json(kind: type[T], path: str | Path) -> T:
    """Read what `to_json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        SettingsError: not a JSON object, an unknown key, or a value of another type.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}: not JSON ({error.msg}, line {error.lineno})") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: the settings must be one JSON object")
    return from_dict(kind, values, str(path))


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; nearest: 'steps'"`, or `"; known: …"` where nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; nearest: '{close[0]}'" if close else f"; known: {', '.join(known)}"


def _set(settings: Any, path: list[str], text: str, key: str) -> Any:
    """`settings` with the field at `path` replaced by what `text` says."""
    name, rest = path[0], path[1:]
    prefix = key[: len(key) - len(".".join(path))]
    _check_key(type(settings), name, prefix)
    value = getattr(settings, name)
    if rest and not is_dataclass(value):
        raise SettingsError(f"unknown setting '{key}': '{prefix}{name}' has no settings of its own")
    if rest:
        return _replace(settings, name, _set(value, rest, text, key), key)
    if is_dataclass(value):
        first = fields(value)[0].name
        raise SettingsError(f"'{key}' is a group of settings; set one of its own, e.g. '{key}.{first}'")
    return _replace(settings, name, _parse(text, get_type_hints(type(settings))[name], key), key)


def _replace(settings: Any, name: str, value: Any, key: str) -> Any:
    """`replace`, with what the dataclass's own checks say turned into a line that names the key."""
    try:
        return replace(settings, **{name: value})
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"setting '{key}': {error}") from None


def _check_key(kind: type, name: str, prefix: str = "", where: str = "") -> None:
    """Raise SettingsError unless dataclass `kind` has a field called `name`."""
    names = [field.name for field in fields(kind)]
    if name not in names:
        known = nearest(f"{prefix}{name}", [prefix + n for n in names])
        raise SettingsError(f"{where + ': ' if where else ''}unknown setting '{prefix}{name}'{known}")


def _parse(text: str, kind: Any, key: str) -> Any:
    """The value that `text` stands for, as type `kind`."""
    try:
        return _read(text, kind)
    except (ValueError, KeyError):
        raise SettingsError(f"setting '{key}': '{text}' is not {describe(kind)}") from None


def _read(text: str, kind: Any) -> Any:
    """`text` as `kind`; ValueError where it isn't one."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_union(text, args)
    if origin is Literal:
        return {str(choice): choice for choice in args}[text]
    if origin is tuple:
        return _read_tuple(text, args)
    if origin is not None and issubclass(origin, Mapping):
        pairs = [part.split(":", 1) for part in _split(text)]
        return {_read(name, args[0]): _read(value, args[1]) for name, value in pairs}
    if kind is bool:
        if text.lower() not in TRUE + FALSE:
            raise ValueError(text)
        return text.lower() in TRUE
    return kind(text)


def _read_union(text: str, args: tuple[Any, ...]) -> Any:
    """The first member type that accepts `text`, in the order of the annotation; `none` is None."""
    if type(None) in args and text.lower() in ("none", "null"):
        return None
    for member in args:
        try:
            return _refuse(text) if member is type(None) else _read(text, member)
        except (ValueError, KeyError):
            continue
    raise ValueError(text)


def _read_tuple(text: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`1,2,2` or `(1, 2, 2)` as a tuple of the annotated length and types."""
    parts = _split(text.strip("()[]"))
    kinds = [args[0]] * len(parts) if len(args) == 2 and args[1] is Ellipsis else list(args)
    return tuple(_read(part, kind) for part, kind in zip(parts, kinds, strict=True))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def describe(kind: Any) -> str:
    """A type in a reader's words: `an integer`, `true or false`, `one of 'a', 'b'`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if arg is type(None) else describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in args)
    if origin is tuple:
        return f"a list such as {','.join('1' if arg in (int, float) else 'a' for arg in args if arg is not Ellipsis)}"
    if origin is not None:
        return "a list of name:value"
    return {int: "an integer", float: "a number", bool: "true or false"}.get(kind, f"a {kind.__name__.lower()}")


def _plain(value: Any) -> Any:
    """JSON's view of a setting."""
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _from_dict(kind: Any, values: Mapping[str, Any], where: str, prefix: str) -> Any:
    for name in values:
        _check_key(kind, name, prefix, where)
    hints = get_type_hints(kind)
    return kind(**{n: _typed(value, hints[n], where, prefix + n) for n, value in values.items()})


def _typed(value: Any, kind: Any, where: str, key: str) -> Any:
    """A JSON value as `kind`: checked, with lists made tuples again and texts paths."""
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where}: setting '{key}' must be a JSON object")
        return _from_dict(kind, value, where, f"{key}.")
    try:
        return _convert(value, kind)
    except (ValueError, TypeError):
        raise SettingsError(f"{where}: setting '{key}': {value!r} is not {describe(kind)}") from None


def _convert(value: Any, kind: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args)
    if origin is Literal:
        return {choice: choice for choice in args}[value] if value in args else _refuse(value)
    if origin is tuple:
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        return tuple(_convert(item, k) for item, k in zip(value, kinds, strict=True))
    if origin is not None:
        return {_read(name, args[0]): _convert(item, args[1]) for name, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    return value if type(value) is kind else _refuse(value)


def _convert_union(value: Any, args: tuple[Any, ...]) -> Any:
    if value is None and type(None) in args:
        return None
    for member in args:
        if is_dataclass(member) and isinstance(value, Mapping):
            return _from_dict(member, value, "settings", "")
        try:
            return _convert(value, member)
        except (ValueError, TypeError):
            continue
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise ValueError(value)
