"""The form of an event in a log: one line, `event key=value`. On the client's path: it imports nothing."""

_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@/:+-"


def line(event: str, fields: "dict[str, object]") -> str:
    """The event and its fields, a value in quotes unless it is a plain word or number."""
    return event + "".join(f" {key}={_quoted(value)}" for key, value in fields.items())


def _quoted(value: object) -> str:
    text = str(value)
    if text and not text.strip(_PLAIN):
        return text
    import json  # only here: few values need quotes

    return json.dumps(text).replace("\x7f", "\\u007f")  # the one control character that JSON lets pass
