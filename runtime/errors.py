"""Every error that cellseg raises on purpose.

The message of each is one clear line: what was given, what was wanted, how to fix it. The command
line prints that line and leaves with ``exit_code``; anything else that escapes is a bug and shows
its traceback.
"""


class CellsegError(Exception):
    """Base of all errors that carry a message for the user."""

    exit_code = 1


class UsageError(CellsegError, ValueError):
    """The command or call itself is wrong: an option, a combination, a missing file."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file has an unknown key, a wrong type or an impossible value."""


class ImageError(CellsegError, ValueError):
    """An image cannot be read, is damaged, or does not fit the model."""


class DataError(CellsegError, ValueError):
    """A data set is incomplete or inconsistent."""


class ModelError(CellsegError, ValueError):
    """A model, checkpoint or engine file is not ours, damaged or of another version."""


class BackendError(CellsegError, RuntimeError):
    """An inference engine is missing, does not fit this machine, or failed while running."""


class OutputError(CellsegError, OSError):
    """A result cannot be written."""


class ExistsError(OutputError):
    """Results are there already, and were not to be replaced."""


class InUseError(OutputError):
    """Another run is writing them."""
