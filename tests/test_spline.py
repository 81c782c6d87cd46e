import pytest
import torch

from sbi_da.posteriors import SplineHead


@pytest.fixture()
def head() -> SplineHead:
    torch.manual_seed(0)
    head = SplineHead(3, 4, transforms=2, bins=6, hidden=(16,))
    for p in head.gaussian.layers[-1].parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    return head


def test_density_and_transform_belong_together(head):
    context, noise = torch.randn(6, 4), torch.randn(6, 3)
    drawn = head.transform(noise, context)
    jacobian = torch.autograd.functional.jacobian(lambda n: head.transform(n, context), noise)
    log_det = torch.stack([torch.linalg.slogdet(jacobian[i, :, i])[1] for i in range(6)])
    base = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(-1)
    assert torch.allclose(head.log_prob(drawn, context), base - log_det, atol=1e-4)


def test_the_affine_layer_starts_as_the_identity():
    torch.manual_seed(0)
    head = SplineHead(3, 4)
    law = head.gaussian(torch.randn(5, 4))
    assert torch.equal(law.location, torch.zeros(5, 3)) and torch.equal(law.root, torch.eye(3).expand(5, 3, 3))
    assert torch.equal(law.log_det, torch.zeros(5))


def test_leading_dimensions_broadcast(head):
    context = torch.randn(5, 4)
    z = torch.randn(5, 7, 3)
    wide = head.log_prob(z, context[:, None].expand(-1, 7, -1))
    assert wide.shape == (5, 7) and torch.allclose(wide[:, 2], head.log_prob(z[:, 2], context), atol=1e-5)


def test_one_parameter_works():
    torch.manual_seed(0)
    head = SplineHead(1, 4)
    assert head.log_prob(torch.randn(5, 1), torch.randn(5, 4)).shape == (5,)
