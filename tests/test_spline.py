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


@pytest.mark.parametrize("parameters, bins, hidden", [(2, 6, (16,)), (3, 10, (12, 9)), (5, 4, (17, 8, 11))])
def test_many_draws_of_an_object_are_those_of_the_flow_itself(parameters, bins, hidden):
    torch.manual_seed(0)
    head = SplineHead(parameters, 4, transforms=3, bins=bins, hidden=hidden).double()
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.4 * torch.randn_like(p))
    context, noise = torch.randn(6, 4).double(), 3 * torch.randn(6, 50, parameters).double()
    slow = head.transform(noise, context[:, None].expand(-1, 50, -1))
    assert (slow.abs() > 5).any()  # beyond the splines, too
    fast = head.transform(noise, context[:, None])
    assert torch.allclose(fast, slow, rtol=1e-9, atol=1e-9)
    each = [torch.autograd.grad(drawn.square().sum(), list(head.parameters())) for drawn in (fast, slow)]
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(*each, strict=True))
