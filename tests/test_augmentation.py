import math

import numpy as np
import pytest
import torch

from sbi_da.augmentation import Augmentation, augment
from sbi_da.errors import SbiDaError
from sbi_da.surveys.display import compose, decompose, to_bytes
from sbi_da.surveys.imaging import Display

STILL = {"rotate": "none", "flip": False}
DISPLAY = Display(softening=10.0, stretch=0.5, scales=(1.0, 1.3, 1.7))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(size: int, sigma: float, dy: float = 0.0, dx: float = 0.0) -> torch.Tensor:
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.exp(-0.5 * ((at[:, None] - dy) ** 2 + (at - dx) ** 2) / sigma**2)


def width(images: torch.Tensor) -> torch.Tensor:
    """Standard deviation along x of the light of each image."""
    at = torch.arange(images.shape[-1], dtype=images.dtype) - (images.shape[-1] - 1) / 2
    profile = images.sum(-2) / images.sum((-2, -1), keepdim=True)[..., 0]
    return ((profile * at**2).sum(-1) - (profile * at).sum(-1) ** 2).sqrt()


# augmented copies


def test_same_generator_same_copies():
    images = torch.rand(16, 3, 20, 20)
    how = Augmentation(rotate="any", zoom=(0.8, 1.2), shift=2, psf=(0, 1), noise=(0, 0.1), brightness=0.1, colour=0.05, crop=16)
    first = augment(images, how, generator())
    assert first.shape == (16, 3, 16, 16) and first.dtype == images.dtype and torch.isfinite(first).all()
    assert torch.equal(first, augment(images, how, generator()))
    assert not torch.equal(first, augment(images, how, generator(1)))


def test_nothing_drawn_leaves_images_as_they_are():
    images = torch.rand(4, 2, 9, 11)
    assert torch.equal(augment(images, Augmentation(**STILL), generator()), images)
    assert torch.equal(augment(images, Augmentation(**STILL, crop=5), generator()), images[..., 2:7, 3:8])


@pytest.mark.parametrize("flip", [False, True])
def test_quarter_turns_are_exact_and_equally_frequent(flip):
    images = torch.rand(1, 2, 8, 8).expand(4000, -1, -1, -1)
    turned = augment(images, Augmentation(rotate="quarter", flip=flip), generator())
    ways = [torch.rot90(x, k, (1, 2)) for x in ([images[0], images[0].flip(2)] if flip else [images[0]]) for k in range(4)]
    counts = torch.stack([(turned == way).flatten(1).all(1) for way in ways]).sum(1)
    assert counts.sum() == 4000
    assert (counts - 4000 / len(ways)).abs().max() < 4 * math.sqrt(4000 / len(ways))


def test_any_angle_turns_about_the_centre_and_keeps_round_images():
    size = 33
    spot = gaussian(size, 2.0, 0.0, 9.0)[None, None].expand(200, -1, -1, -1)
    turned = augment(spot, Augmentation(rotate="any", flip=False), generator())
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    light = turned.sum((-2, -1))[:, 0]
    x, y = (turned.sum(-2)[:, 0] * at).sum(-1) / light, (turned.sum(-1)[:, 0] * at).sum(-1) / light
    assert torch.hypot(x, y) == pytest.approx(9.0, abs=0.1)
    angle = torch.atan2(y, x)
    assert torch.stack([angle.cos().mean(), angle.sin().mean()]).abs().max() < 0.2
    middle = gaussian(size, 3.0)[None, None].expand(20, -1, -1, -1)
    assert (augment(middle, Augmentation(rotate="any"), generator()) - middle).abs().max() < 0.03


def test_zoom_and_shift():
    round_spot = gaussian(64, 4.0)[None, None].expand(50, -1, -1, -1)
    zoomed = augment(round_spot, Augmentation(**STILL, zoom=(1.5, 1.5)), generator())
    assert width(zoomed) == pytest.approx(6.0, rel=0.02)
    spread = width(augment(round_spot, Augmentation(**STILL, zoom=(0.5, 1.5)), generator()))
    assert 2.0 < spread.min() < 3.0 and 5.0 < spread.max() < 6.1
    moved = augment(round_spot, Augmentation(**STILL, shift=5.0), generator())
    at = torch.arange(64, dtype=torch.float64) - 31.5
    x = (moved.sum(-2)[:, 0] * at).sum(-1) / moved.sum((-2, -1))[:, 0]
    assert 4.0 < x.abs().max() <= 5.01 and abs(float(x.mean())) < 1.5


def test_seeing_adds_in_quadrature_for_each_object():
    spot = gaussian(64, 3.0)[None, None].expand(100, 2, -1, -1)
    blurred = augment(spot, Augmentation(**STILL, psf=(4.0, 4.0)), generator())
    assert width(blurred) == pytest.approx(5.0, rel=1e-3)
    assert blurred.sum((-2, -1)) == pytest.approx(float(spot[0, 0].sum()), rel=1e-6)
    added = (width(augment(spot, Augmentation(**STILL, psf=(0.0, 4.0)), generator())) ** 2 - 9).clamp_min(0).sqrt()
    assert torch.allclose(added[:, 0], added[:, 1]) and added.min() < 0.5 and added.max() > 3.5
    level = torch.full((3, 1, 16, 16), 0.7)
    assert torch.allclose(augment(level, Augmentation(**STILL, psf=(2.0, 2.0)), generator()), level, atol=1e-6)


def test_noise_brightness_colour_and_absent_bands():
    zeros = torch.zeros(200, 2, 32, 32)
    noisy = augment(zeros, Augmentation(**STILL, noise=(0.1, 0.3)), generator())
    deviation = noisy.std((1, 2, 3))
    assert deviation.min() > 0.09 and deviation.max() < 0.31 and deviation.mean() == pytest.approx(0.2, abs=0.015)
    ones = torch.ones(2000, 2, 2, 2)
    factor = augment(ones, Augmentation(**STILL, brightness=0.2), generator())[..., 0, 0].log()
    assert torch.allclose(factor[:, 0], factor[:, 1]) and factor.std() == pytest.approx(0.2, rel=0.1)
    factor = augment(ones, Augmentation(**STILL, colour=0.1), generator())[..., 0, 0].log()
    assert (factor[:, 0] - factor[:, 1]).std() == pytest.approx(0.1 * math.sqrt(2), rel=0.1)
    present = torch.tensor([[True, False]]).expand(200, -1)
    kept = augment(zeros, Augmentation(**STILL, noise=(0.1, 0.3)), generator(), present)
    assert (kept[:, 1] == 0).all() and (kept[:, 0] != 0).any()


def test_grey_is_the_mean_of_the_bands_that_are_there():
    images = torch.rand(400, 3, 4, 4, generator=generator())
    present = torch.tensor([True, False, True]).expand(400, -1)
    seen = augment(images, Augmentation(**STILL, grey=0.3), generator(), present)
    changed = (seen != images).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.07) and torch.equal(seen[:, 1], images[:, 1])
    mean = images[changed][:, [0, 2]].mean(1)
    assert torch.allclose(seen[changed, 0], mean) and torch.allclose(seen[changed, 2], mean)


def test_a_square_of_a_fifth_is_hidden_anywhere():
    seen = augment(torch.ones(2000, 2, 20, 20), Augmentation(**STILL, hide=0.5), generator())
    hidden = seen[:, 0] == 0
    assert torch.equal(hidden, seen[:, 1] == 0)
    count = hidden.sum((1, 2))
    assert set(count.tolist()) == {0, 16} and (count > 0).float().mean() == pytest.approx(0.5, abs=0.04)
    assert hidden.any(0).all()


def test_bad_augmentations():
    for bad, said in (({"zoom": (0.1, 1)}, "zoom needs a range"), ({"psf": (2, 1)}, "psf needs a range"), ({"turn": 1}, "Extra inputs")):
        with pytest.raises(ValueError, match=said):
            Augmentation(**bad)
    with pytest.raises(SbiDaError, match="6 x 8 pixels cannot be turned"):
        augment(torch.zeros(1, 1, 6, 8), Augmentation(), generator())
    with pytest.raises(SbiDaError, match="cannot be cropped to 9"):
        augment(torch.zeros(1, 1, 8, 8), Augmentation(crop=9), generator())


# colour composites


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_composite_round_trip_and_formula(kind):
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    given[0] = 0
    given[1] = 255
    colour = torch.from_numpy(given) if kind == "torch" else given
    again = np.asarray(compose(decompose(colour, DISPLAY), DISPLAY))
    assert np.abs(again - given / 255).max() < 1 / 255 / 100 and np.array_equal(to_bytes(again), given)
    flux = np.array([0.02, 0.01, 0.005]).reshape(3, 1, 1)
    scaled = flux * np.reshape(DISPLAY.scales, (3, 1, 1))
    mean = scaled.mean()
    expected = scaled * math.asinh(10.0 * mean / 0.5) / 10.0 / mean
    got = compose(torch.tensor(flux) if kind == "torch" else flux, DISPLAY)
    assert np.asarray(got) == pytest.approx(expected, rel=1e-9)
    assert np.asarray(decompose(got, DISPLAY)) == pytest.approx(flux, rel=1e-9)


def test_clipping_keeps_the_hue_and_negative_pixels_are_black():
    bright = np.array([4e8, 2e8, 1e8]).reshape(3, 1, 1)
    plain = Display(softening=10.0, stretch=0.5)
    assert compose(bright, plain).ravel() == pytest.approx([1.0, 0.5, 0.25])
    assert (compose(-bright, plain) == 0).all()
    assert compose(np.array([-0.01, 0.05, 0.05]).reshape(3, 1, 1), plain)[0] == 0
