"""Posteriors handed to sbi's diagnostics and plots."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from exact_gaussian import COVARIANCE, MEAN, SMALL, exact_estimator, exact_posterior, problem, simulate
from scipy.stats import kstest
from torch import distributions as td

from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.learning import estimator_of
from sbi_da.records import ABSENT, LIMIT, Measurements, Records
from sbi_da.surveys import Channel, Noise, Survey
from sbi_da.to_sbi import SbiPosterior, draws_of
from sbi_da.vectors import MISSING

sbi = pytest.importorskip("sbi")
from sbi.analysis import conditional_pairplot, pairplot, sbc_rank_plot  # noqa: E402
from sbi.diagnostics import LC2ST, check_sbc, check_tarp, run_sbc, run_tarp  # noqa: E402
from sbi.diagnostics.sbc import check_uniformity_frequentist, get_nltp  # noqa: E402


@pytest.fixture(scope="module")
def exact() -> SbiPosterior:
    return SbiPosterior(exact_estimator())


@pytest.fixture(scope="module")
def tests_set() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    theta = td.MultivariateNormal(MEAN, COVARIANCE).sample((400,))
    return theta, simulate(theta)


class TestPosterior:
    def test_shapes_are_those_of_sbi(self, exact, tests_set):
        theta, x = tests_set
        assert exact.sample((5,), x[0]).shape == exact.sample((5,), x[:1]).shape == (5, 2)
        assert exact.sample((5, 3), x[0]).shape == (5, 3, 2) and exact.sample(x=x[0]).shape == (2,)
        assert exact.sample_batched((5,), x[:4]).shape == (5, 4, 2)
        assert exact.sample_batched((5, 3), x[:4]).shape == (5, 3, 4, 2)
        assert exact.log_prob(theta[:6], x[0]).shape == (6,) and exact.log_prob(theta[0], x[0]).shape == (1,)
        assert exact.log_prob_batched(theta[:4], x[:4]).shape == (4,)
        assert exact.log_prob_batched(theta[:8].reshape(2, 4, 2), x[:4]).shape == (2, 4)

    def test_densities_are_exact(self, exact, tests_set):
        theta, x = tests_set
        for seen in ([0, 1, 2], [1]):
            some = torch.full((3,), torch.nan)
            some[seen] = x[7, seen]
            mean, covariance = exact_posterior(x[7].numpy(), seen)
            law = td.MultivariateNormal(torch.tensor(mean), torch.tensor(covariance))
            assert torch.allclose(exact.log_prob(theta, some).double(), law.log_prob(theta.double()), atol=1e-3)
        together = exact.log_prob_batched(theta[:20], x[:20])
        assert torch.allclose(together, torch.cat([exact.log_prob(t, v) for t, v in zip(theta[:20], x[:20], strict=True)]), atol=1e-4)
        stacked = exact.log_prob_batched(torch.stack([theta[:20], theta[20:40], theta[40:60]]), x[:20])
        assert torch.allclose(stacked[2], exact.log_prob_batched(theta[40:60], x[:20]), atol=1e-4)

    def test_draws_follow_the_seed_of_torch(self, exact, tests_set):
        x = tests_set[1][0]
        torch.manual_seed(4)
        first, second = exact.sample((50,), x), exact.sample((50,), x)
        torch.manual_seed(4)
        assert torch.equal(exact.sample((50,), x), first) and not torch.equal(first, second)

    def test_the_maximum_of_a_normal_law_is_its_mean(self, exact, tests_set):
        x = tests_set[1][0]
        torch.manual_seed(0)
        assert np.allclose(exact.map(x)[0], exact_posterior(x, [0, 1, 2])[0], atol=0.01)

    def test_nan_and_the_number_that_stands_for_it_are_absent(self, exact):
        network = estimator_of(problem(), network=SMALL).eval()
        marked = torch.tensor([[1.0, MISSING, 0.3], [MISSING] * 3])
        for posterior in (exact, SbiPosterior(network)):
            torch.manual_seed(0)
            absent = posterior.sample_batched((20,), torch.where(marked == MISSING, torch.nan, marked))
            torch.manual_seed(0)
            assert torch.equal(posterior.sample_batched((20,), marked), absent)
        chosen = SbiPosterior(network, missing=-9.0).records([[1.0, -9.0, 0.3]])
        assert chosen.survey("left").state.tolist() == [[1, 0]]

    def test_the_observation_can_be_set_once(self, exact):
        posterior = SbiPosterior(exact.estimator, [1.0, -2.0, 0.0])
        assert posterior.default_x.shape == (1, 3) and posterior.sample((2,)).shape == (2, 2)
        with pytest.raises(SbiDaError, match="set it with set_default_x"):
            exact.sample((2,))

    @pytest.mark.parametrize(
        ("call", "message"),
        [(lambda p: p.sample((2,), [1.0, 2.0]), r"\(object, 3\) is needed, of left.a, left.b, right.c"),
         (lambda p: p.sample((2,), torch.zeros(2, 3)), "2 observations where one"),
         (lambda p: p.sample((2,), [1.0, 2.0, float("inf")]), "infinite"),
         (lambda p: p.log_prob(torch.zeros(4, 3), torch.zeros(3)), "theta has shape"),
         (lambda p: p.log_prob(torch.zeros(1, 2), torch.zeros(3), track_gradients=True), "no gradients")],
    )
    def test_bad_input_is_refused_in_one_line(self, exact, call, message):
        with pytest.raises(SbiDaError, match=message) as error:
            call(exact)
        assert "\n" not in str(error.value)

    def test_images_are_refused(self, exact):
        from sbi_da.surveys import get_survey

        photographs = Estimator([get_survey("sdss_images")], exact.prior.wrapped, {}, SMALL)
        with pytest.raises(SbiDaError, match="images of sdss_images"):
            SbiPosterior(photographs)


class TestDiagnostics:
    def test_ranks_of_the_exact_posterior_are_flat(self, exact, tests_set):
        theta, x = tests_set
        torch.manual_seed(1)
        ranks, averaged = run_sbc(theta, x, exact, num_posterior_samples=200, show_progress_bar=False)
        checks = check_sbc(ranks, theta, averaged, num_posterior_samples=200)
        assert ranks.shape == (400, 2) and (checks["ks_pvals"] > 0.01).all() and (checks["c2st_dap"] < 0.57).all()

    def test_and_with_half_of_the_data_missing(self, exact, tests_set):
        theta, x = tests_set
        torch.manual_seed(2)
        some = torch.where(torch.rand(x.shape) < 0.5, MISSING, x)
        ranks, _ = run_sbc(theta, some, exact, num_posterior_samples=200, show_progress_bar=False)
        assert len(ranks) == 400 and (check_uniformity_frequentist(ranks, 200) > 0.01).all()

    def test_a_posterior_that_is_too_narrow_is_found_out(self, tests_set):
        theta, x = tests_set
        torch.manual_seed(1)
        narrow = SbiPosterior(exact_estimator(narrower=0.5))
        ranks, _ = run_sbc(theta, x, narrow, num_posterior_samples=200, show_progress_bar=False)
        assert (check_uniformity_frequentist(ranks, 200) < 0.01).any()
        coverage, level = run_tarp(theta, x, narrow, num_posterior_samples=200, show_progress_bar=False)
        assert (coverage - level).abs().max() > 0.12

    def test_coverage_is_nominal(self, exact, tests_set):
        theta, x = tests_set
        torch.manual_seed(1)
        ranks, _ = run_sbc(theta[:150], x[:150], exact, 200, reduce_fns=exact.log_prob, show_progress_bar=False)
        assert kstest(ranks[:, 0].numpy() / 200, "uniform").pvalue > 0.01
        coverage, level = run_tarp(theta, x, exact, num_posterior_samples=200, show_progress_bar=False)
        assert (coverage - level).abs().max() < 0.08 and check_tarp(coverage, level)[1] > 0.05

    def test_one_at_a_time_as_well(self, exact, tests_set):
        theta, x = tests_set
        torch.manual_seed(1)
        ranks, _ = run_sbc(theta[:100], x[:100], exact, 100, show_progress_bar=False, use_batched_sampling=False)
        assert kstest(ranks[:, 0].numpy() / 100, "uniform").pvalue > 0.01

    @pytest.mark.filterwarnings("ignore:Note that log probs of the true parameters:UserWarning")
    def test_densities_of_true_parameters(self, exact, tests_set):
        theta, x = tests_set
        assert torch.allclose(get_nltp(theta[:5], x[:5], exact), -exact.log_prob_batched(theta[:5], x[:5]), atol=1e-4)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_local_tests_take_its_draws(self, exact, tests_set):
        theta, x = tests_set
        torch.manual_seed(1)
        options = {"hidden_layer_sizes": (8,), "max_iter": 40, "early_stopping": True}
        judge = LC2ST(theta, x, exact.sample_batched((1,), x)[0], num_trials_null=5, classifier_kwargs=options)
        judge.train_on_observed_data().train_under_null_hypothesis()
        drawn = exact.sample((200,), x[0])
        assert 0 <= judge.p_value(drawn, x[:1]) <= 1  # of so few trials; that it takes them is what is tested

    @pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:_(get_default_opts|arrange_plots) will be deprecated:PendingDeprecationWarning")
    def test_pictures(self, exact, tests_set):
        theta, x = tests_set
        figure, _ = pairplot(exact.sample((200,), x[0]), points=theta[:1], labels=exact.parameters)
        ranks, _ = run_sbc(theta[:100], x[:100], exact, 100, show_progress_bar=False)
        other, _ = sbc_rank_plot(ranks, 100, parameter_labels=exact.parameters)
        held = SbiPosterior(exact.estimator, x[0])
        third, _ = conditional_pairplot(held, theta[0], limits=[[-3, 3], [-5, 1]], resolution=10)
        assert len({figure, other, third}) == 3
        plt.close("all")


BRIGHT = Channel(
    name="g", column="g", error_column="g_error", system="AB", wavelength=0.5, depth=20.0,
    noise=Noise(points=((14, 0.01), (20, 0.2))),
)
PARALLAX = Channel(
    name="p", kind="parallax", unit="mas", column="p", error_column="p_error", noise=Noise(points=((14, 0.1), (20, 1.0)), reference="g")
)


class TestErrors:
    @pytest.fixture()
    def posterior(self, exact) -> SbiPosterior:
        survey = Survey(name="s", title="s", reference="test", channels=(BRIGHT, PARALLAX))
        return SbiPosterior(Estimator([survey], exact.prior.wrapped, {}, SMALL))

    def test_they_follow_the_noise_law(self, posterior):
        measured = posterior.records([[14.0, 3.0], [20.0, 3.0], [20.0, torch.nan]]).survey("s")
        assert np.allclose(measured.error[:, 0], [0.01, 0.2, 0.2]) and np.allclose(measured.error[:2, 1], [0.1, 1.0])
        with pytest.raises(SbiDaError, match="the error of s.p follows from g"):
            posterior.records([torch.nan, 3.0])

    def test_records_go_to_vectors_and_back(self, posterior):
        measured = Measurements(
            ("g", "p"), ("mag", "mas"), np.array([[15.0, 1.0], [20.5, 2.0], [np.nan, 3.0], [16.0, np.nan]]),
            np.array([[0.01, 0.2], [0.2, 0.3], [np.nan, 0.4], [0.02, np.nan]]), np.array([[1, 1], [LIMIT, 1], [0, 1], [1, 0]], np.uint8),
        )
        records = Records.build({"s": measured}, parameters={"u": np.arange(4.0), "v": np.arange(4.0)})
        theta, x = posterior.tensors(records)
        assert theta.shape == (4, 2) and x.shape == (4, 4) and torch.isfinite(x).all()
        again = posterior.records(x).survey("s")
        assert np.array_equal(again.state, measured.state)
        seen = measured.state != ABSENT
        assert np.allclose(again.value[seen], measured.value[seen]) and np.allclose(again.error[seen], measured.error[seen])
        with pytest.raises(SbiDaError, match="the records lack u, v"):
            posterior.tensors(Records.build({"s": measured}))


def test_draws_of_a_posterior_at_hand(exact):
    posterior = exact.estimator(exact.records(torch.zeros(3, 3)))
    drawn = draws_of(posterior, 20, seed=1)
    assert drawn.shape == (20, 3, 3) and posterior.reported == ["u", "v", "sum"]
    assert torch.allclose(drawn[:, 1, 0], torch.from_numpy(posterior.sample(20, 1)["u"].values[1]).float())
    assert draws_of(posterior.marginal(["v"]), 5).shape == (5, 3, 1)
