"""Every error a user can cause or fix. Each message says what was wrong, the value, and the fix."""


class AutomlPruneError(Exception):
    """Base of all errors this package raises on purpose; the command line prints it and exits with 2."""


class ConfigError(AutomlPruneError):
    """A configuration, search space or registry name is wrong."""


class DataError(AutomlPruneError):
    """Data are missing, corrupt, or in another layout than the configuration says."""


class ModelError(AutomlPruneError):
    """A model cannot be built, run or traced."""


class PlanError(AutomlPruneError):
    """A pruning plan does not fit the model it is applied to."""


class BudgetError(AutomlPruneError):
    """A budget is malformed or cannot be reached; the message holds the reachable range."""


class CheckpointError(AutomlPruneError):
    """A file of weights or a run directory is missing, damaged, or of another model."""


class EvaluationError(AutomlPruneError):
    """One candidate could not be evaluated (its loss diverged, say); the study goes on without it."""


class StudyError(AutomlPruneError):
    """A study cannot be opened, or belongs to another configuration."""


class ExportError(AutomlPruneError):
    """An exported model does not compute what the torch model computes; nothing was written."""


class ReportError(AutomlPruneError):
    """A figure cannot be written; the message names what to install. The report itself needs nothing."""


class Interrupted(KeyboardInterrupt):  # it is a request, not a fault
    """SIGTERM or SIGHUP asked the run to stop, as Ctrl-C does; running work was handed back and can be resumed.

    No ``Exception``, so that nobody who expects anything of a user's code or of torch takes it for its fault.
    """
