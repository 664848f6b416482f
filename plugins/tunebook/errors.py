"""The one error a user is meant to see: what is wrong, and the step that ends it."""


class TunebookError(Exception):
    """Something the user can mend.

    Args:
        problem: What is wrong, naming file, key and value.
        fix: The step that ends it, as an imperative.

    The command line prints both lines and exits 2; anything else that is raised is a bug and keeps its
    traceback.

    >>> print(TunebookError("no such recipe: qwen", fix="list them with `tunebook ls`"))
    no such recipe: qwen
    fix: list them with `tunebook ls`
    """

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\nfix: {self.fix}"


def join_errors(errors: list[TunebookError]) -> TunebookError:
    """One error out of several, so that a user mends a file once and not once per fault.

    Raises:
        ValueError: `errors` is empty.
    """
    if not errors:
        raise ValueError("join_errors needs at least one error")
    if len(errors) == 1:
        return errors[0]
    lines = [f"{number}. {error.problem}" for number, error in enumerate(errors, 1)]
    fixes = [f"{number}. {error.fix}" for number, error in enumerate(errors, 1)]
    return TunebookError("\n".join([f"{len(errors)} faults:", *lines]), fix="\n".join(["", *fixes]))
