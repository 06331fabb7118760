"""What a machine shows of its pace: from files as Linux lays them out."""

import pytest

from mixbit.devices.throttling import clocks, slowdown


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_board_shows_frequency_temperature_and_governor(tmp_path):
    cores = "sys/devices/system/cpu"
    found = clocks(write(tmp_path, {
        f"{cores}/cpu0/cpufreq/scaling_cur_freq": "1500000\n", f"{cores}/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
        f"{cores}/cpu0/cpufreq/scaling_governor": "ondemand\n", f"{cores}/cpu1/cpufreq/scaling_governor": "ondemand\n",
        "sys/class/thermal/thermal_zone0/temp": "48300\n", "sys/class/thermal/thermal_zone1/temp": "61200\n",
        "proc/cpuinfo": "cpu MHz : 1.0\n",
    }))  # fmt: skip
    assert found == {"frequency_mhz": 1950.0, "temperature_c": 61.2, "governor": "ondemand"}


def test_without_scaling_the_frequency_is_the_processors_own_word(tmp_path):
    root = write(tmp_path, {"proc/cpuinfo": "model name : x\ncpu MHz : 2596.1\n\nmodel name : x\ncpu MHz : 2600.3\n"})
    assert clocks(root) == {"frequency_mhz": 2598.2, "temperature_c": None, "governor": None}


def test_what_cannot_be_read_is_not_shown(tmp_path):
    assert set(clocks(write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "hot"})).values()) == {None}


@pytest.mark.parametrize(("times", "slowed", "alarm"), [
    ([1.0, 1.0, 1.0, 9.0, 1.06, 1.06, 1.06, 1.06, 1.06], 0.06, True), ([2.0, 1.0, 1.0, 1.0], -0.5, False),
    ([1.0] * 6 + [1.04] * 3, 0.04, False), ([1.0], 0.0, False),
])  # fmt: skip
def test_a_slowdown_is_from_the_first_third_to_the_last(times, slowed, alarm):
    found = slowdown(times)
    assert found["slowed"] == pytest.approx(slowed)
    assert found["alarm"] is alarm
