"""The one error type that speaks to the user rather than to the programmer."""


class DeFlowError(Exception):
    """A mistake that the user can mend.

    The message is one clear sentence: what was wrong, where, and what to do. It is raised before
    any long work begins and before anything is written; the command line prints it and exits with
    status 2.
    """


def first_line(error: BaseException) -> str:
    """What an error says, without what follows its first line, or its kind where it is silent."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
