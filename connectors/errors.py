"""The two families of failures: those that pass by themselves, and those that somebody has to mend."""


class ConnectorError(Exception):
    """What failed, with which value, and what to do."""


class TransientError(ConnectorError):
    """May work when tried again; `retry_after` is the wait in seconds that the other side asked for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(ConnectorError):
    """Fails again however often it is tried."""


class Stopped(ConnectorError):
    """The process was asked to end while something was still being retried; it comes again at the next start."""
