"""Why a file of records cannot be read, in words: what Python says of it means nothing to whoever has the file."""

import json


class OddRecord(ValueError):
    """A record with a field that is none; the message says which, as the end of a sentence."""


READING = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading such a file raises."""


def reason(error: BaseException) -> str:
    """What is wrong with the file, for the inside of a sentence."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} is no JSON"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError) and error.args:
        return f"a record has no {error.args[0]}"
    return str(error) if isinstance(error, OddRecord) else "a record is not as dualat writes it"
