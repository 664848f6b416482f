"""Start-up hook; the real one is being written."""


def install() -> None:
    """Do nothing yet."""
