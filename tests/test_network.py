import torch

from sbi_da.encoders import ScalarEncoder
from sbi_da.fusion import MaskedTransformer

KINDS, INDEX = ["magnitude", "magnitude", "parallax", "magnitude", "scalar"], [0, 0, 0, 1, 1]


def measurements(n=200):
    torch.manual_seed(0)
    value, error = torch.randn(n, 5) + 15, torch.rand(n, 5) * 0.1 + 0.01
    return value, error, torch.randint(0, 3, (n, 5)).to(torch.uint8)


def test_tokens_are_common_brightness_then_surveys_then_channels():
    torch.manual_seed(0)
    encoder = ScalarEncoder(KINDS, INDEX, 8, 12)
    state = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 1, 0, 2], [0, 0, 0, 0, 0]], dtype=torch.uint8)
    tokens, present, summary = encoder(torch.ones(3, 5), torch.ones(3, 5), state)
    assert tokens.shape == (3, 1 + 2 + 5, 8) and summary.shape == (3, 12)
    assert torch.equal(summary[2], torch.zeros(12))
    expected = [[1, 1, 0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 1, 0, 1], [0] * 8]
    assert torch.equal(present, torch.tensor(expected, dtype=torch.bool))


def test_a_survey_token_depends_on_its_own_channels_and_the_common_brightness_only():
    torch.manual_seed(0)
    encoder = ScalarEncoder(KINDS, INDEX, 8, 12)
    value, error, _ = measurements(1)
    state = torch.ones(1, 5, dtype=torch.uint8)
    tokens = encoder(value, error, state)[0]
    moved = value.clone()
    moved[0, 4] += 1.0  # a scalar of the second survey
    again = encoder(moved, error, state)[0]
    assert torch.equal(tokens[0, 1], again[0, 1]) and not torch.equal(tokens[0, 2], again[0, 2])


def test_a_limit_and_a_detection_of_the_same_value_differ():
    torch.manual_seed(0)
    encoder = ScalarEncoder(KINDS, INDEX, 8, 12)
    value, error, _ = measurements(1)
    detected, limit = torch.ones(1, 5, dtype=torch.uint8), torch.ones(1, 5, dtype=torch.uint8)
    limit[0, 3] = 2
    assert not torch.allclose(encoder(value, error, detected)[0][0, 6], encoder(value, error, limit)[0][0, 6])


def test_masked_tokens_have_no_influence_in_any_layer():
    torch.manual_seed(0)
    fusion = MaskedTransformer(16, 12, layers=3, heads=4, summary=20)
    tokens, present = torch.randn(300, 9, 16), torch.rand(300, 9) < 0.5
    present[:5] = False
    summary = torch.randn(300, 20)
    changed = torch.where(present[..., None], tokens, torch.randn(300, 9, 16) * 1e6)
    for one, other in zip(fusion(tokens, present, summary, True), fusion(changed, present, summary, True), strict=True):
        assert torch.equal(one, other)
    assert torch.isfinite(fusion(tokens, present, summary)[0]).all()


def test_groups_of_similar_length_change_nothing():
    torch.manual_seed(0)
    fusion = MaskedTransformer(16, 12, summary=20, group=32)
    tokens, present = torch.randn(256, 9, 16), torch.rand(256, 9) < 0.5
    summary = torch.randn(256, 20)
    grouped = fusion(tokens, present, summary, True)
    fusion.group = 256
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(grouped, fusion(tokens, present, summary, True), strict=True))


def test_normalisation_ignores_absent_entries():
    value, error, state = measurements()
    encoder, again = ScalarEncoder(KINDS, INDEX, 8, 12), ScalarEncoder(KINDS, INDEX, 8, 12)
    encoder.fit(value, error, state)
    again.fit(torch.where(state == 0, 1e30, value), error, state)
    assert torch.equal(encoder.center, again.center) and torch.equal(encoder.scale, again.scale)
    assert encoder.center.abs().max() > 1
