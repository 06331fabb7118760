"""When Prefect's server went away during a run: one line and an end.

Task runs do not need the server while they run, so everything is computed. But Prefect then tries to deliver each of
its events for seven seconds (measured: 60 events, seven minutes), and at exit nothing but leaving at once stops that.
"""

from collections.abc import Callable

from flows.server_commands import PREFECT, probe
from mixbit.errors import MixbitError


class PrefectAway(MixbitError):  # noqa: N818 - what it says, not what it is
    """Prefect's server does not answer any more; who catches this must leave without Prefect's exit handlers."""


def until_the_end(flow: Callable[[], object], url: str) -> None:
    """Run a flow, then see whether its server still answers.

    Raises:
        PrefectAway: it does not, whether the flow failed or not.
        KeyboardInterrupt: also on SIGTERM, which Prefect turns into an exception of its own.
    """
    from prefect.exceptions import TerminationSignal

    try:
        flow()
    except TerminationSignal:
        raise KeyboardInterrupt from None
    except BaseException as error:
        _check(url, error)
        raise
    _check(url, None)


def _check(url: str, failure: BaseException | None) -> None:
    fault = probe(PREFECT, url)
    if fault is None:
        return
    if isinstance(failure, MixbitError):
        raise PrefectAway("", str(failure)) from failure
    hint = "What was finished is kept; run the same command again to go on"
    raise PrefectAway(url, f"the prefect server went away during the run ({fault})", hint=hint) from failure
