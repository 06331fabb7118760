"""A device whose server goes away, with a worker that does nothing."""

import asyncio
import sys

import pytest

from mixbit.devices import stay
from mixbit.errors import MixbitError


class Enough(BaseException):
    """No further worker is planned."""


class Worker:
    """Works until cancelled, or ends with an error; `jobs` is how many run, look by look."""

    def __init__(self, jobs=(0,), error=None):
        self.jobs, self.error = list(jobs), error

    @property
    def limiter(self):
        return self

    @property
    def borrowed_tokens(self):
        return self.jobs.pop(0)

    async def start(self, *, printer):
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


@pytest.fixture
def stay_with(monkeypatch):
    """Stay online with these workers, one after the other, while the server answers as told; the last word stays."""

    def staying(answers, *workers, within_s=10.0):
        told, left = list(answers), list(workers)
        for pause in ("LOOK_S", "AGAIN_S"):
            monkeypatch.setattr(stay, pause, 0.01)
        monkeypatch.setattr(stay, "_answers", lambda _: told.pop(0) if len(told) > 1 else told[0])

        async def new_worker():
            if not left:
                raise Enough
            if isinstance(left[0], Exception):
                raise left.pop(0)
            return left.pop(0)

        asyncio.run(asyncio.wait_for(stay.stay_online(new_worker, "health"), within_s))

    return staying


def test_a_worker_is_made_anew_when_the_server_was_away_and_is_back(stay_with, capfd):
    worker = Worker()
    with pytest.raises(Enough):
        stay_with([True, False, False, True], worker)
    assert worker.jobs == []
    assert capfd.readouterr().out.count("the server does not answer") == 1


def test_a_worker_with_a_job_stays_until_that_has_ended(stay_with):
    worker = Worker(jobs=[1, 1, 0])
    with pytest.raises(Enough):
        stay_with([False, True], worker)
    assert worker.jobs == []


def test_a_worker_that_gave_up_without_its_server_is_made_anew(stay_with):
    with pytest.raises(Enough):
        stay_with([False, False, True], Worker(error=RuntimeError("Service exceeded error threshold.")))


def test_a_device_that_can_not_join_at_once_tries_again(stay_with, capfd):
    gave_up = Worker(error=RuntimeError("gave up"))
    with pytest.raises(Enough):
        stay_with([False, True], gave_up, MixbitError("server", "is busy"))
    assert "could not join again, tries once more: server: is busy" in capfd.readouterr().out


def test_a_device_without_its_server_can_be_stopped(stay_with):
    with pytest.raises(TimeoutError):
        stay_with([False], Worker(error=RuntimeError("gave up")), within_s=0.2)


def test_a_worker_that_ends_beside_its_server_is_one_line(stay_with):
    error = ExceptionGroup("of tasks", [RuntimeError("the pool is gone\nlong story")])
    with pytest.raises(MixbitError, match=r"the worker ended: the pool is gone\. See serve\.log") as caught:
        stay_with([True], Worker(error=error))
    assert "\n" not in str(caught.value)


def test_only_lines_of_jobs_reach_the_terminal_and_all_reach_the_log(tmp_path, capfd):
    with stay.own_words(tmp_path / "log"):
        print("job measured (3 s)")
        print("Prefect has news")
        print("and worries", file=sys.stderr)
    assert capfd.readouterr() == ("job measured (3 s)\n", "")
    assert (tmp_path / "log").read_text() == "job measured (3 s)\nPrefect has news\nand worries\n"
