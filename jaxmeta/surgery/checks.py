"""Checks that several weightings make of their settings."""


def check_num_tasks(num_tasks: int) -> None:
    """Raises ValueError unless there is a task.

    Example:
      >>> check_num_tasks(1)
    """
    if num_tasks < 1:
        raise ValueError(f"num_tasks must be >= 1, got {num_tasks}.")


def check_learning_rate(learning_rate: float) -> None:
    """Raises ValueError unless a learning rate is positive.

    Example:
      >>> check_learning_rate(0.1)
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}.")
