import pytest

from flows import prefect_away
from flows.prefect_away import PrefectAway, until_the_end
from flows.servers import Servers
from mixbit.errors import MixbitError


@pytest.fixture
def away(monkeypatch):
    monkeypatch.setattr(prefect_away, "probe", lambda _name, _url: "Connection refused")


@pytest.fixture
def there(monkeypatch):
    monkeypatch.setattr(prefect_away, "probe", lambda _name, _url: None)


def fail():
    raise MixbitError("indicators", "the loss became nan")


def test_a_flow_whose_server_is_there_ends_as_it_does(there):
    until_the_end(lambda: None, "http://x")
    with pytest.raises(MixbitError, match="the loss became nan") as caught:
        until_the_end(fail, "http://x")
    assert type(caught.value) is MixbitError


def test_a_server_that_went_away_is_one_line_even_when_everything_was_computed(away):
    with pytest.raises(PrefectAway, match=r"went away during the run.*run the same command again") as caught:
        until_the_end(lambda: None, "http://x")
    assert "\n" not in str(caught.value)


def test_whatever_prefect_raises_then_is_that_line(away):
    def flow():
        raise OSError("All connection attempts failed")

    with pytest.raises(PrefectAway, match="http://x: the prefect server went away"):
        until_the_end(flow, "http://x")


def test_a_stage_that_failed_is_told_also_when_the_server_is_gone(away):
    with pytest.raises(PrefectAway, match=r"^indicators: the loss became nan$"):
        until_the_end(fail, "http://x")


def test_sigterm_stops_as_ctrl_c_does(there):
    import signal

    from prefect.exceptions import TerminationSignal

    def flow():
        raise TerminationSignal(signal=signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        until_the_end(flow, "http://x")


def test_a_flows_own_requests_are_tried_for_seconds_not_minutes(tmp_path):
    environment = Servers("http://a", "http://b", tmp_path).environment()
    assert int(environment["PREFECT_CLIENT_MAX_RETRIES"]) <= 3
