"""Parses a line of the daemon's log, `event key=value ...`, and makes it readable."""

import json
import pwd
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EVENT = re.compile(r"[a-z][a-z0-9_]*(?= |$)")
_FIELD = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^" ]+)')
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_PLAIN = re.compile(r"[!-~]+")

# Fields that are not texts. An account may have any name, for example `True`.
_NUMBERS = ("uid", "pid", "offset", "counter", "steps", "accounts")
_MAY_BE_NONE = (*_NUMBERS, "deadline", "spent_from", "spent_until")
_TRUTHS = ("valid", "cutover", "forced")
_LISTS = ("added", "replaced", "dropped", "changed")  # of accounts, if several changed at once

_EVENT_WIDTH = 8  # as wide as `generate`, which is frequent


class Event:
    """One line: the event's name and its fields, as texts."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: "dict[str, str]") -> None:
        self.event = event
        self.fields = fields

    def is_about(self, account: str) -> bool:
        """True if the line names the account, alone or with others."""
        lists = (self.fields[name].split(", ") for name in _LISTS if name in self.fields)
        return self.fields.get("account") == account or any(account in names for names in lists)

    def as_json(self) -> "dict[str, Any]":
        """The event and its fields, with numbers and truth values converted."""
        return {"event": self.event, **{name: _value(name, text) for name, text in self.fields.items()}}

    def readable(self) -> str:
        """The line for people: the user first, then the rest, without the pid."""
        fields = dict(self.fields)
        fields.pop("pid", None)
        words = [self.event.ljust(_EVENT_WIDTH)]
        if "uid" in fields:
            words.append(user(fields.pop("uid")))
        if "method" in fields:
            words.append(shown(fields.pop("method")))
        reason = fields.pop("reason", None)
        words += [phrase for name, text in fields.items() if (phrase := _phrase(name, text))]
        return "  ".join([*words, *([] if reason is None else [_harmless(reason)])]).rstrip()


def parse(line: str) -> Event | None:
    """Parse a line; None if it has another form, for example in a traceback."""
    event = _EVENT.match(line)
    if event is None:
        return None
    fields, end = {}, event.end()
    while end < len(line):
        field = _FIELD.match(line, end)
        if field is None:
            return None
        name, text = field.groups()
        try:
            fields[name] = json.loads(text) if text.startswith('"') else text
        except ValueError:
            return None
        end = field.end()
    return Event(event[0], fields)


def _phrase(name: str, text: str) -> str:
    """A field for people; empty if it is false or None."""
    if name == "valid":
        return "valid" if text == "True" else "invalid"
    if name == "code":  # the code of a refusal; codes of accounts are in no log
        return shown(text)
    value = _value(name, text)
    if value is None or value is False:
        return ""
    if value is True:
        return name
    return f"{name} {shown(text)}"


def user(uid: str) -> str:
    """The uid, with the name of its user if the system has one."""
    try:
        name = pwd.getpwuid(int(uid)).pw_name
    except (KeyError, ValueError, OverflowError):
        return f"uid {shown(uid)}"
    return f"{name} (uid {int(uid)})"


def shown(text: str) -> str:
    """The text, in quotes unless it is one plain word, so that it cannot look like another field."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _harmless(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _value(name: str, text: str) -> "Any":
    if name in _NUMBERS and _NUMBER.fullmatch(text):
        return int(text)
    if name in _TRUTHS and text in ("True", "False"):
        return text == "True"
    return None if name in _MAY_BE_NONE and text == "None" else text
