"""Devices that a host knows, without any server."""

import pytest

from mixbit.devices import known
from mixbit.devices.device import find_device
from mixbit.devices.known import Announcement
from mixbit.errors import MisuseError, MixbitError
from tasks import profile

SAID = Announcement({"arch": "aarch64", "measured_by": "0123"}, "2026-01-01T00:00:00+00:00")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path))
    return tmp_path


def test_a_device_that_was_added_is_found_with_what_it_announced():
    known.write("pi5", SAID)
    assert find_device("pi5").fingerprint() == SAID.fingerprint
    assert known.names() == ["pi5"]


def test_what_a_device_announced_is_a_fact_of_its_profiles():
    known.write("pi5", SAID)
    facts = profile.facts(profile.Params(device="pi5"))
    assert facts == {"device.arch": "aarch64", "device.measured_by": "0123"}


def test_an_unknown_device_names_all_known_ones():
    known.write("pi5", SAID)
    with pytest.raises(MisuseError, match="unknown device, expected local or local-openvino or pi5, got moon"):
        find_device("moon")


def test_a_removed_device_is_unknown():
    known.write("pi5", SAID)
    assert known.remove("pi5")
    with pytest.raises(MisuseError, match="unknown device"):
        find_device("pi5")


def test_a_damaged_file_says_what_mends_it(home):
    known.write("pi5", SAID)
    (home / "devices" / "pi5.json").write_text("{")
    with pytest.raises(MixbitError, match=r"damaged\. `mixbit devices add pi5` writes it again"):
        find_device("pi5")


@pytest.mark.parametrize("name", ["local", "cpu", "", "Pi5", "../x", "-a", "a" * 41, "a/b"])
def test_names_that_no_remote_device_can_have(name):
    with pytest.raises(MisuseError, match="not the name of a remote device"):
        known.check_name(name)
