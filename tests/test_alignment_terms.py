"""What every alignment term keeps to, whichever it is; and where terms act."""

import pytest
import torch

from sbi_da.alignment.features import Features
from sbi_da.alignment.placed import FEWEST, PlacedTerm, within_strata
from sbi_da.alignment.registry import PAIR_TERMS, TERMS
from sbi_da.alignment.term import Term, normalised, nothing, squared_distances
from sbi_da.alignment_config import PairSpec, TermSpec, Weighting

WIDTH = 6


def batches():
    torch.manual_seed(0)
    some = torch.randn(12, WIDTH)
    return {
        "apart": (some, torch.randn(9, WIDTH) + 2.0),
        "identical": (some, some.clone()),
        "all one point": (torch.ones(8, WIDTH), torch.ones(8, WIDTH)),
        "orthogonal": (torch.eye(WIDTH)[:3], torch.eye(WIDTH)[3:]),
        "single row": (some[:1], some[1:2]),
        "empty real": (some, torch.zeros(0, WIDTH)),
        "empty simulated": (torch.zeros(0, WIDTH), some),
        "both empty": (torch.zeros(0, WIDTH), torch.zeros(0, WIDTH)),
        "zeros": (torch.zeros(4, WIDTH), torch.zeros(4, WIDTH)),
        "huge": (1e4 * some, 1e4 * torch.randn(9, WIDTH)),
    }


def make(kind):
    torch.manual_seed(0)
    return TermSpec(kind=kind).term(WIDTH)


@pytest.mark.parametrize("case", batches())
@pytest.mark.parametrize("kind", TERMS)
def test_values_and_gradients_are_finite_on_every_batch(kind, case):
    simulated, real = (x.clone().requires_grad_() for x in batches()[case])
    value = make(kind)(simulated, real)
    assert value.shape == () and torch.isfinite(value)
    value.backward()
    assert torch.isfinite(simulated.grad).all() and torch.isfinite(real.grad).all()
    if 0 in (len(simulated), len(real)):
        assert value == 0 and not simulated.grad.any() and not real.grad.any()


@pytest.mark.parametrize("kind", TERMS)
def test_both_sides_get_gradients(kind):
    simulated, real = (x.clone().requires_grad_() for x in batches()["apart"])
    term = make(kind)
    term.progress = 1.0
    term(simulated, real).backward()
    assert simulated.grad.abs().sum() > 0 and real.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", TERMS)
def test_the_scale_of_weights_is_of_no_account_and_zero_weight_is_absence(kind):
    simulated, real = batches()["apart"]
    weight = torch.rand(12) + 0.1
    term = make(kind)
    value = term(simulated, real, weight=weight)
    assert torch.allclose(value, term(simulated, real, weight=7 * weight), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", TERMS)
def test_configs_name_every_term_and_refuse_unknown_options(kind):
    spec = TermSpec.model_validate({"kind": kind, "on": "both", "weight": {"kind": "linear", "value": 2.0}})
    assert isinstance(spec.term(WIDTH), Term)
    with pytest.raises(Exception, match="no_such_option"):
        TermSpec(kind=kind, options={"no_such_option": 1})


@pytest.mark.parametrize("on", ["context", "surveys", "both"])
@pytest.mark.parametrize("kind", TERMS)
def test_every_term_acts_at_every_place_whatever_the_widths(kind, on):
    torch.manual_seed(0)
    present = torch.ones(2 * FEWEST, 2, dtype=torch.bool)
    sides = [
        [x.requires_grad_() for x in (torch.randn(2 * FEWEST, WIDTH) + k, torch.randn(2 * FEWEST, 2, WIDTH + 3) + k)] for k in (0, 1)
    ]
    placed = TermSpec(kind=kind, on=on).build(WIDTH, WIDTH + 3, 2)
    placed.set_progress(0.7)
    assert len(placed.terms) == {"context": 1, "surveys": 2, "both": 3}[on] and all(term.progress == 0.7 for term in placed.terms)
    placed(*(Features(context, tokens, present) for context, tokens in sides)).backward()
    for context, tokens in sides:
        assert (context.grad is not None and bool(context.grad.any())) == (on != "surveys")
        assert (tokens.grad is not None and bool(tokens.grad.any(2).all())) == (on != "context")


@pytest.mark.parametrize("kind", PAIR_TERMS)
def test_pair_terms_are_finite_and_fall_as_partners_meet(kind):
    term = PairSpec(kind=kind).build()
    torch.manual_seed(0)
    simulated, noise = torch.randn(8, WIDTH), torch.randn(8, WIDTH)
    given = simulated[:, None] if term.several else simulated
    values = [float(term(given, simulated + size * noise)) for size in (0.1, 1.0, 3.0)]
    assert values == sorted(values)
    for rows in (0, 1, 8):
        real = torch.zeros(rows, WIDTH, requires_grad=True)
        value = term(given[:rows], real)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(real.grad).all()


class Shift(Term):
    """Squared difference of means: simple enough to compute by hand."""

    kind = "shift"

    def forward(self, simulated, real, *, weight=None, matches=None, cost=None):
        self.matches = matches
        return (normalised(weight, simulated) @ simulated - real.mean(0)).square().mean()


def features(context, present, surveys=None):
    surveys = context[:, None].expand(-1, present.shape[1], -1) if surveys is None else surveys
    return Features(context, surveys, present)


def test_strata_compare_like_with_like():
    rows = 2 * FEWEST
    present = torch.tensor([[True, True]] * FEWEST + [[True, False]] * FEWEST)
    context = torch.cat([torch.zeros(FEWEST, 3), torch.ones(FEWEST, 3)])
    same = features(context, present)
    other = features(context.flip(0), present)
    assert float(PlacedTerm(Shift())(same, same)) == 0
    assert float(PlacedTerm(Shift())(same, other)) == 1
    assert float(PlacedTerm(Shift(), strata="none")(same, other)) == 0
    assert float(PlacedTerm(Shift())(same, features(context, ~present))) == 0, "no common pattern, nothing to compare"
    halves = (torch.arange(rows) % 2, torch.arange(rows) % 2)
    assert float(PlacedTerm(Shift())(same, other, classes=halves)) == 0, "strata of four rows are too small"


def test_survey_tokens_of_objects_without_the_survey_take_no_part():
    present = torch.tensor([[True, True]] * FEWEST + [[True, False]] * FEWEST)
    surveys = torch.zeros(2 * FEWEST, 2, 3)
    moved = surveys.clone()
    moved[FEWEST:, 1] = 1e6
    context = torch.zeros(2 * FEWEST, 3)
    placed = PlacedTerm(surveys=[Shift(), Shift()], strata="none")
    assert float(placed(features(context, present, surveys), features(context, present, moved))) == 0
    moved[:FEWEST, 1] = 2.0
    assert float(placed(features(context, present, surveys), features(context, present, moved))) == pytest.approx(2.0)
    both = PlacedTerm(Shift(), [Shift(), Shift()], strata="none")
    assert float(both(features(context, present, surveys), features(context + 1, present, moved))) == pytest.approx(3.0)


def test_matches_are_renumbered_within_strata():
    group = torch.tensor([0, 1] * FEWEST)
    rows = torch.randn(2 * FEWEST, 2)
    term = Shift()
    seen = []
    term.forward = lambda s, r, **known: (seen.append(known["matches"].tolist()), nothing(s, r))[1]
    within_strata(term, rows, rows, group, group, matches=torch.tensor([[0, 2], [3, 5], [0, 1]]))
    assert seen == [[[0, 1]], [[1, 2]]]


def test_empty_batches_and_gradients_through_placement():
    present = torch.ones(FEWEST, 1, dtype=torch.bool)
    context = torch.randn(FEWEST, 3, requires_grad=True)
    side = features(context, present)
    empty = features(torch.zeros(0, 3), torch.zeros(0, 1, dtype=torch.bool))
    value = PlacedTerm(Shift(), [Shift()])(side, empty)
    value.backward()
    assert value == 0 and not context.grad.any()


def test_distances_are_those_of_the_definition():
    x, y = torch.randn(5, 4), torch.randn(6, 4)
    assert torch.allclose(squared_distances(x, y), ((x[:, None] - y) ** 2).mean(-1), atol=1e-5)


def test_weightings_become_schedules():
    ramp = Weighting(value=2.0, warmup=0.2, full=0.6).build()
    assert [ramp.at(p) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 1, 2, 2])
    assert Weighting(kind="fixed", value=3.0).build().at(0.0) == 3.0
