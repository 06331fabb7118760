"""What a user can fix, in one line: where, what, expected, got, and what to try next."""

from collections.abc import Sequence


class MixbitError(Exception):
    """A run that failed for a reason the user can act on; the command line prints it and exits with `exit_code`.

    Args:
        where: `file:line: key`, a layer, a stage or a server; empty when there is no better place than the message.
        what: what is wrong, without a full stop.
        expected: the set or range that would have been right.
        got: the value found.
        hint: what to try next.
    """

    exit_code = 1

    def __init__(
        self, where: str, what: str, *, expected: object = None, got: object = None, hint: str | None = None
    ) -> None:
        self.where, self.what, self.expected, self.got, self.hint = where, what, expected, got, hint
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [self.what]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        line = ", ".join(part for part in parts if part)
        line = f"{self.where}: {line}" if self.where else line
        return " ".join((f"{line}. {self.hint}" if self.hint else line).split("\n"))


class MisuseError(MixbitError):
    """A command, a table or a file that says something impossible; nothing was started."""

    exit_code = 2


class ConfigError(MisuseError):
    """All faults of one file at once, a line each."""

    def __init__(self, faults: Sequence[MixbitError]) -> None:
        self.faults = tuple(faults)
        Exception.__init__(self, "\n".join(str(fault) for fault in self.faults))


class RunError(MixbitError):
    """Several failures of one run, a line each."""

    def __init__(self, faults: Sequence[object]) -> None:
        Exception.__init__(self, "\n".join(str(fault) for fault in faults))


class StageError(MixbitError):
    """A failure inside a stage, each line told with the cell it happened in. Exits 1: stages had started."""

    def __init__(self, cell: str, error: MixbitError) -> None:
        lines = [line if line.startswith(cell) else f"{cell}: {line}" for line in str(error).splitlines()]
        Exception.__init__(self, "\n".join(lines))
