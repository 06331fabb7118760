"""A device stays online by itself, and its terminal readable.

Prefect's worker ends some minutes after its server has gone, and its look-out for cancelled jobs before that. So it is
made anew when the server was away and is back, as soon as no job runs.
"""

import asyncio
import io
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TextIO

from mixbit.errors import MixbitError
from mixbit.http import opener

JOB = "job "  # how a line of a job begins
LOOK_S, PROBE_S, AGAIN_S = 5.0, 10.0, 30.0


class Worker(Protocol):
    """What is needed of Prefect's worker."""

    @property
    def limiter(self) -> Any:
        """Its `borrowed_tokens` are jobs under way; RuntimeError before it has started."""
        ...

    async def start(self, *, printer: Callable[..., None]) -> None:
        """Take jobs until cancelled, or until the server is away for too long."""
        ...


async def stay_online(new_worker: Callable[[], Awaitable[Worker]], health: str) -> None:
    """Have a worker take jobs until cancelled.

    Args:
        new_worker: joins, and makes a worker.
        health: the address at which the server says that it is up.

    Raises:
        Exception: it can't join the first time.
        MixbitError: the worker ended while its server was up.
    """
    await _work(await new_worker(), health)
    while True:
        while not await asyncio.to_thread(_answers, health):  # noqa: ASYNC110 - nothing tells when a server is back
            await asyncio.sleep(LOOK_S)
        try:
            worker = await new_worker()
        except Exception as error:  # noqa: BLE001 - nobody stands beside a device to start it again
            say(f"could not join again, tries once more: {_cause(error)}")
            await asyncio.sleep(AGAIN_S)
        else:
            await _work(worker, health)


async def _work(worker: Worker, health: str) -> None:
    """Until the server was away, is back, and no job runs; or until the worker gave up."""
    running, was_away = asyncio.create_task(worker.start(printer=lambda *_: None)), False
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=LOOK_S)
            answers = await asyncio.to_thread(_answers, health)
            if answers and was_away and not _is_busy(worker):
                break
            if not (answers or was_away):
                say("the server does not answer: waiting for it")
            was_away = was_away or not answers
    finally:
        running.cancel()
        await asyncio.wait({running})
    error = None if running.cancelled() else running.exception()
    if error is not None and not was_away:
        traceback.print_exception(error)
        hint = "See serve.log in its --folder, then start it again"
        raise MixbitError("mixbit-device", f"the worker ended: {_cause(error)}", hint=hint)


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_busy(worker: Worker) -> bool:
    try:
        return bool(worker.limiter.borrowed_tokens)
    except RuntimeError:
        return False


def _answers(health: str) -> bool:
    try:
        opener(health).open(health, timeout=PROBE_S).close()
    except OSError:
        return False
    return True


def await_answer(health: str, within_s: float) -> None:
    """Return when the server answers, or after `within_s`."""
    end = time.monotonic() + within_s
    while not _answers(health) and time.monotonic() < end:
        time.sleep(LOOK_S)


def say(line: str) -> None:
    """To the terminal."""
    print(line, file=sys.__stdout__, flush=True)


@contextmanager
def own_words(log: Path) -> Iterator[None]:
    """What others print goes to a file; of jobs, which print through the worker, their own lines to the terminal."""
    with log.open("w") as file, redirect_stdout(_JobLines(file)), redirect_stderr(file):
        yield


class _JobLines(io.TextIOBase):
    def __init__(self, log: TextIO) -> None:
        self._log = log

    def write(self, text: str) -> int:
        if text.startswith(JOB):
            say(text.rstrip())
        return self._log.write(text)

    def flush(self) -> None:
        self._log.flush()
