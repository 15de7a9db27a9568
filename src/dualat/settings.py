"""What every settings class of the library shares: unknown keys are refused, values are checked on assignment."""

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", validate_assignment=True)
"""Configuration of each pydantic dataclass that holds settings: nothing is silently ignored."""
