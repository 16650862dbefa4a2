"""Made-up arrivals: how many requests a second a workload asks for, over time, and one draw of them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from slipway.simulate.queueing import Numbers

Rates = Callable[[int, float, np.random.Generator], Numbers]


def steady(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """One rate for ever."""
    return np.full(seconds, mean)


def step(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """Five times as much for the middle third."""
    rates = np.full(seconds, mean * 3 / 7)
    begin = seconds // 3 + int(draws.integers(0, 60))
    rates[begin : begin + seconds // 3] *= 5
    return rates


def ramp(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """From a third of the mean up to five thirds in a third of the time, and down again."""
    third = seconds // 3
    points = np.interp(np.arange(seconds), [0, third, 2 * third, seconds], [1 / 3, 1 / 3, 5 / 3, 1 / 3])
    return mean * points / points.mean()


def spikes(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """A steady rate with spikes of two to four times as much: one in eight minutes, each of one to three minutes."""
    return _with_spikes(np.ones(seconds), mean, draws, every=480.0, height=(2.0, 4.0), length=(60.0, 180.0), rise=5.0)


def diurnal(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """A day squeezed into the time: night, morning and evening peaks."""
    day = 2 * np.pi * np.arange(seconds) / seconds
    rates = 1 - 0.6 * np.cos(day) + 0.2 * np.sin(2 * day)
    return mean * rates / rates.mean()


def twitter(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """A day like that of Twitter's traces: the diurnal wave, slow noise of 8% over minutes, and short spikes upon it."""
    noise, level = np.empty(seconds), 0.0
    keep = np.exp(-1 / 120)
    shocks = draws.normal(0, 0.08 * np.sqrt(1 - keep**2), seconds)
    for second in range(seconds):
        level = keep * level + shocks[second]
        noise[second] = level
    wave = diurnal(seconds, 1.0, draws) * np.exp(noise)
    return _with_spikes(wave, mean, draws, every=900.0, height=(1.3, 2.2), length=(90.0, 270.0), rise=45.0)


def mmpp(seconds: int, mean: float, draws: np.random.Generator) -> Numbers:
    """A Markov-modulated Poisson process: bursts of 2.5 times the quiet rate, dwell times exponential (300 s and 150 s)."""
    rates, at, busy = np.empty(seconds), 0.0, False
    while at < seconds:
        lasts = draws.exponential(150.0 if busy else 300.0)
        rates[int(at) : int(at + lasts) + 1] = 2.5 if busy else 1.0
        at, busy = at + lasts, not busy
    return mean * rates / 1.5


SHAPES: dict[str, Rates] = {each.__name__: each for each in (steady, step, ramp, spikes, diurnal, twitter, mmpp)}


def draw(rates: Numbers, draws: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw the requests of each second: Poisson's, given the rate."""
    return draws.poisson(rates)


def _with_spikes(
    rates: Numbers,
    mean: float,
    draws: np.random.Generator,
    *,
    every: float,
    height: tuple[float, float],
    length: tuple[float, float],
    rise: float,
) -> Numbers:
    """Put spikes upon rates, that rise and fall within so many seconds, and scale all to the mean."""
    rates = rates.copy()
    times = np.arange(len(rates))
    at = draws.exponential(every)
    while at < len(rates):
        high, lasts = draws.uniform(*height), draws.uniform(*length)
        rates *= 1 + (high - 1) * np.clip(np.minimum(times - at, at + lasts - times) / rise, 0, 1)
        at += lasts + draws.exponential(every)
    return mean * rates / rates.mean()
