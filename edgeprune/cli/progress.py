"""Progress on standard error, so that standard output stays clean."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from edgeprune.cli.interrupts import raise_lost
from edgeprune.cli.supervisor import doing
from edgeprune.progress import Progress


class TerminalProgress(Progress):
    """A line per stage and, when standard error is a terminal, a bar for long work."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Bar(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: int | None = None

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def stage(self, number: int, total: int, name: str, reused: bool) -> None:
        raise_lost()
        doing(f"the stage {name!r}")
        done = " (reused)" if reused else ""
        self._console.print(f"[{number}/{total}] {name}{done}", markup=False, soft_wrap=True)

    def begin(self, what: str, total: int | None) -> None:
        raise_lost()
        self.end()
        self._task = self._bar.add_task(what, total=total)

    def advance(self, units: int = 1) -> None:
        raise_lost()
        if self._task is not None:
            self._bar.advance(self._task, units)  # type: ignore[arg-type]

    def end(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)  # type: ignore[arg-type]
            self._task = None

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", markup=False, soft_wrap=True)
