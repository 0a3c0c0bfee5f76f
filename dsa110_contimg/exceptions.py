"""What can go wrong, in one screen.

Every error of this package is a `ContimgError`. The constructor keywords ``path``, ``found`` and ``expected``
make the one-paragraph message that a user sees: what is wrong, with which file, what was found, what was expected.

```
ContimgError
├── InputError                    something given to us is not what it must be
│   ├── EmptyInputError           a directory without subband files
│   ├── CorruptFileError        truncated or inconsistent file
│   ├── UnreadableFileError     could not be looked at (permission, input and output); it may be good
│   ├── ForeignTelescopeError     a good file of another telescope
│   ├── IncompleteGroupError      too few subbands
│   ├── CatalogError              a source list that cannot be used
│   └── SchemaError               a Dataset that does not hold to `schema`
├── CalibrationError              solutions missing, failed or out of their validity
│   └── NoValidCalibrationError   no table covers the time
├── ImagingError                  imaging could not be done or diverged
├── MeasurementError              a flux could not be measured
├── ExternalToolError             CASA, WSClean, Chromium: absent, failed, or out of time
├── StateError                    the database, the queue or a lease
├── OutputError                   a place that cannot be written
└── SettingsError                 configuration that does not parse
```
"""

from __future__ import annotations

from pathlib import Path


class ContimgError(Exception):
    """Base of all errors of dsa110_contimg.

    Parameters
    ----------
    what : str
        One sentence that says what is wrong.
    path : path-like, optional
        The file or directory concerned.
    found, expected : object, optional
        What was found there, and what was expected instead.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | Path | None = None,
        found: object = None,
        expected: object = None,
    ) -> None:
        self.what = what
        self.path = None if path is None else Path(path)
        self.found = found
        self.expected = expected
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what.rstrip(".") + "."
        if self.path is not None:
            text += f" File: {self.path}."
        if self.found is not None:
            text += f" Found: {self.found}."
        if self.expected is not None:
            text += f" Expected: {self.expected}."
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # keyword arguments do not survive the default pickling, and errors cross process borders
        return (_rebuild, (type(self), self.what, self.path, self.found, self.expected))


def _rebuild(kind: type[ContimgError], what: str, path: Path | None, found: object, expected: object) -> ContimgError:
    return kind(what, path=path, found=found, expected=expected)


class InputError(ContimgError):
    """Something given to us is not what it must be."""


class EmptyInputError(InputError):
    """A directory without subband files."""


class CorruptFileError(InputError):
    """A file that is unreadable, truncated or contradicts itself."""


class UnreadableFileError(InputError):
    """A file that could not be looked at (permission, input and output); it may be good."""


class ForeignTelescopeError(InputError):
    """A good file, of another telescope."""


class IncompleteGroupError(InputError):
    """A group with too few subbands."""


class CatalogError(InputError):
    """A source list that cannot be used."""


class SchemaError(InputError):
    """A Dataset that does not hold to its declaration in `schema`."""


class CalibrationError(ContimgError):
    """Calibration solutions are missing, failed, or out of their validity."""


class NoValidCalibrationError(CalibrationError):
    """No calibration table covers the time of an observation."""


class ImagingError(ContimgError):
    """Imaging could not be done, or diverged."""


class MeasurementError(ContimgError):
    """A flux could not be measured."""


class ExternalToolError(ContimgError):
    """A program outside this package is absent, failed, or ran out of time."""


class StateError(ContimgError):
    """The state database refused, or holds what it must not."""


class OutputError(ContimgError):
    """A place that cannot be written."""


class SettingsError(ContimgError):
    """Configuration that does not parse."""
