"""The errors a user can meet: each message is one line that says what, where, found, expected and what to do."""

from __future__ import annotations


class BsexportError(Exception):
    """Base of every error that bsexport raises on purpose; the CLI prints it as one line and exits with 1."""


class RecipeError(BsexportError):
    """An option has a value that cannot be used."""


class SourceError(BsexportError):
    """The model to read is missing, incomplete, damaged or of a kind that cannot be read."""


class ExportError(BsexportError):
    """The model was read, but no graph could be made of it."""


class DataError(BsexportError):
    """The data to train or to measure on are missing, empty, or do not suit the task or the model."""


class TrainError(BsexportError):
    """Training cannot begin or cannot go on."""


class ResumeError(BsexportError):
    """What a stopped run left is damaged, or was begun as another run."""


class TargetError(BsexportError):
    """A target of training was not reached."""


class BenchError(BsexportError):
    """A model cannot be measured: it does not take the inputs, or a process that measured it died."""


class BundleError(BsexportError):
    """A bundle cannot be made: a wheel cannot be had for the device, or there is no such device."""


class OutputError(BsexportError):
    """The output cannot be written: it exists, the folder is missing or the disk is full."""


class ClusterError(BsexportError):
    """The cluster to work on cannot be reached, or lacks a library."""


class ReproduceError(BsexportError):
    """An experiment cannot be run, or its folder holds another one."""


class VerifyError(BsexportError):
    """A package does not hold what it should: a checksum, a block or a weight is wrong."""
