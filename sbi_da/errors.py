"""What a user can mend: every message names what is wrong, where, and the fix, in one line."""

__all__ = ["ArtefactError", "ConfigError", "SbiDaError", "TableError", "UnknownNameError"]


class SbiDaError(ValueError):
    """Bad input. The command line prints the message and exits with status 2."""


class UnknownNameError(SbiDaError):
    """A survey, simulator, config or parameter name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: list[str], hint: str = "") -> None:
        tail = f"; {hint}" if hint else ""
        super().__init__(f"unknown {kind} {name!r}: known are {', '.join(known) or 'none'}{tail}")


class ConfigError(SbiDaError):
    """A config key or value that does not fit."""


class TableError(SbiDaError):
    """A table that cannot be read as measurements."""


class ArtefactError(SbiDaError):
    """A saved estimator or record set that is broken or of another version."""
