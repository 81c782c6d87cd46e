"""Draws from mixture posteriors of real objects, and estimators trained on them."""

import numpy as np
import pytest
from shifted_toy import real_objects

from sbi_da.alignment_config import AlignmentConfig, MixtureSpec
from sbi_da.alignment_run import align
from sbi_da.amortised import mixture_draws
from sbi_da.errors import SbiDaError
from sbi_da.labels import label_log_score
from sbi_da.records import ABSENT, Records
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator

SIMULATOR = get_simulator("linear_gaussian")
EVERYTHING = {"gamma": 1000.0, "tau": 0.0}
"""Every object is coupled with the whole bank."""


def drawn(estimator, real, spec, **options):
    return mixture_draws(estimator, SIMULATOR, real, MixtureSpec(bank=500, **spec), **options)


def test_each_with_its_nearest_simulations_has_its_own_posterior(calibrated):
    real = real_objects(200, 2, shift=0.0)
    found = drawn(calibrated, real, {"gamma": 1e-3, "tau": 0.0})
    assert found.z.shape == (200, 16, 3) and found.twin is None
    own = calibrated(real).sample(100)
    for k, name in enumerate(calibrated.parameter_names):
        assert np.corrcoef(found.z[:, :, k].mean(1), own[name].values.mean(1))[0, 1] > 0.9


def test_all_with_all_simulations_have_the_prior(calibrated):
    found = drawn(calibrated, real_objects(200, 2), EVERYTHING)
    assert abs(found.z.mean()) < 0.15 and found.z.std() == pytest.approx(1.0, abs=0.15)
    right = drawn(calibrated, real_objects(200, 2), EVERYTHING, weights=lambda z: (z[:, 0] > 0).astype(float))
    assert right.z[:, :, 0].mean() == pytest.approx(0.8, abs=0.15) and abs(right.z[:, :, 1].mean()) < 0.15
    with pytest.raises(SbiDaError, match="too far"):
        drawn(calibrated, real_objects(20, 2), EVERYTHING, weights=lambda z: 0 * z[:, 0])


def test_simulations_lack_what_their_objects_lack(calibrated, monkeypatch):
    real = real_objects(40, 2)
    first = real.surveys[0]
    half = np.arange(40) < 20
    seen = {n: real.survey(n) for n in real.surveys}
    seen[first].state[half] = ABSENT
    encoded, branches, encode = [], [], type(calibrated).encode

    def watched(self, observed, real):
        encoded.append(observed)
        branches.append(real)
        return encode(self, observed, real=real)

    monkeypatch.setattr(type(calibrated), "encode", watched)
    drawn(calibrated, Records.build(seen, parameters=real.parameters, attrs={"domain": "real"}), {})
    assert [len(s.state) for s in encoded[1::2]] == [20, 20]
    for bank, own in (encoded[:2], encoded[2:]):
        assert np.array_equal((bank.state == ABSENT).any(0), (own.state == ABSENT).all(0))
    drawn(calibrated, real.isel(half), {}, corrected=True)
    assert branches == [False, True, False, True, True, True], "objects of a corrected simulator stand for real ones"


@pytest.mark.filterwarnings("ignore:alignment is not used")
def test_an_estimator_learns_the_mixtures_and_forgets_nothing(calibrated):
    config = AlignmentConfig(
        correction=False, adapter=["instrument", "film", "residual"], train="adapter", mixture=MixtureSpec(bank=500, **EVERYTHING),
        epochs=2, steps_per_epoch=60, batch=128, learning_rate=1e-2,
    )
    real = real_objects(300, 2)
    found = align(calibrated, real.isel(slice(0, 60)), real, config, threads=1).candidate
    before, after = (which(real).sample(100)["theta_1"].values.std(1).mean() for which in (calibrated, found))
    assert before < 0.6 and after > 1.4 * before
    simulated = simulate(SIMULATOR, SIMULATOR.surveys(), 20, 5)
    assert np.array_equal(label_log_score(calibrated, simulated), label_log_score(found, simulated))


def test_mixtures_need_an_adapter_and_unlabelled_objects(calibrated):
    with pytest.raises(ValueError, match="mixture: needs an adapter"):
        AlignmentConfig(mixture=MixtureSpec())
    config = AlignmentConfig(correction=False, adapter=["residual"], mixture=MixtureSpec())
    with pytest.raises(SbiDaError, match="unlabelled real objects"):
        align(calibrated, real_objects(30, 1), None, config, threads=1)
