"""A terminal that keeps what is written to it."""


class Terminal:
    """A standard error that is a terminal."""

    def __init__(self):
        self.text = ''

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError('no file')
