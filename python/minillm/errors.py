"""The library's errors. Each is an `Error` and the built-in exception that fits, so that either can be caught."""


class Error(Exception):
    """Anything that went wrong inside MiniLLM. The text says what was met, what was expected, and where."""


class InvalidArgumentError(Error, ValueError):
    """The caller asked for something that makes no sense."""


class NotFoundError(Error, FileNotFoundError, LookupError):
    """A file, tensor, key or model is missing."""


class CorruptFileError(Error, ValueError):
    """A file contradicts its own format."""


class UnsupportedError(Error, NotImplementedError):
    """Understood, but not implemented: a dtype, an architecture, a device."""


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be had."""


class CapacityError(Error, ValueError):
    """A configured limit (context, cache, batch) would be passed."""


class DeviceError(Error, OSError):
    """A device or the network failed."""


class CancelledError(Error, RuntimeError):
    """The caller cancelled the work."""


class InternalError(Error, RuntimeError):
    """A bug of MiniLLM's: an invariant does not hold."""
