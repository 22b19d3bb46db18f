from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.model import Vectors
from ragcore.steps.relevance import PROBES, Calibration, Probed, calibrate, calibration_of
from ragcore.testing.memory.embedder import MemoryEmbedder


def vectors(own: float, *, count: int = 8, seed: int = 0, language: float = 0.0) -> Vectors:
    """Unit rows: row n shares `own` with every other set's row n, the languages their own axis."""
    basis = np.eye(count * 3 + 3, dtype=np.float32)
    rows = own * basis[:count] + (1 - own) * basis[count * (1 + seed) : count * (2 + seed)]
    rows = rows + language * basis[-1 - seed]
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_noise_is_0_and_a_hit_is_1() -> None:
    calibration = Calibration(noise=0.2, hit=0.6)
    assert calibration.strength(0.2) == pytest.approx(0)
    assert calibration.strength(0.6) == pytest.approx(1)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_higher_cosine_is_never_weaker(first: float, second: float) -> None:
    calibration = Calibration(noise=0.3, hit=0.3)  # a model that tells nothing apart
    low, high = sorted((first, second))
    assert calibration.strength(low) <= calibration.strength(high)


def test_a_model_is_measured_by_its_own_hits_and_noise() -> None:
    questions, passages = vectors(0.9), vectors(0.9, seed=1)
    calibration = calibrate({"en": questions}, {"en": passages})
    cosines = questions @ passages.T
    assert calibration.hit == pytest.approx(float(np.diagonal(cosines).mean()))
    assert calibration.noise == pytest.approx(0.0, abs=1e-6)
    assert calibration.language_gap == 0.0


def test_a_model_that_keeps_languages_apart_has_a_gap() -> None:
    english, russian = vectors(0.9, language=0.5), vectors(0.9, seed=1, language=0.5)
    calibration = calibrate({"en": english, "ru": russian}, {"en": english, "ru": russian})
    assert calibration.language_gap > 0.1


def test_a_model_without_a_language_is_judged_by_the_others() -> None:
    english, noise = vectors(0.9), vectors(0.0, seed=1)
    deaf = calibrate({"en": english, "ru": vectors(0.0)}, {"en": english, "ru": noise})
    assert deaf == calibrate({"en": english}, {"en": english})


def test_a_question_that_is_near_to_everything_has_an_excess() -> None:
    english = vectors(0.9)
    probed = Probed(questions={"en": english}, passages={"en": english})
    vague = english.sum(axis=0) / np.linalg.norm(english.sum(axis=0))
    assert probed.excess(vague, asked="en", told="en") > 0.2
    assert probed.excess(-vague, asked="en", told="en") < 0
    assert probed.excess(vague, asked="de", told=None) == probed.excess(
        vague, asked="en", told="en"
    )


def test_every_probe_is_there_in_both_languages() -> None:
    assert all(set(probe.question) == set(probe.passage) == {"en", "ru"} for probe in PROBES)


async def test_a_model_nobody_knows_is_measured_once() -> None:
    embedder = MemoryEmbedder()
    calibration = await calibration_of(embedder)
    assert calibration.hit > calibration.noise
    calls = len(embedder.calls)
    assert await calibration_of(embedder) == calibration
    assert len(embedder.calls) == calls


async def test_the_bundled_model_is_known_and_not_measured_again() -> None:
    embedder = MemoryEmbedder()
    embedder.spec = replace(embedder.spec, model="bundled:multilingual-e5-small")
    assert (await calibration_of(embedder)).noise == pytest.approx(0.75)
    assert embedder.calls == []
