"""Volunteers who look at the toy's pictures: true probabilities of their answers are known for every object."""

import numpy as np
from small_galaxies import camera, pictures

from sbi_da.config import Config
from sbi_da.records import Images, Records

SHARES = {"shape": np.array([[0.85, 0.10, 0.05], [0.15, 0.65, 0.20]]), "bar": np.array([[0.5, 0.5], [0.2, 0.8]])}
"""By question, mean probability of each answer for round spots and for streaks."""
ANSWERS = {"shape": ("smooth", "disc", "star"), "bar": ("no", "yes")}
STRENGTH = 12.0
"""Sum of the concentrations: how much objects of a kind differ."""
RATES = {"ring": (0.9, 0.2), "bar": (0.1, 0.6), "dim": (0.5, 0.5)}
"""By label, how often it holds for round spots and for streaks."""


def world(n, seed=0, noise=0.02):
    """Kinds, pictures, votes and labels of ``n`` objects; streaks alone are asked for bars."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(2, n)
    known = {}
    for question, shares in SHARES.items():
        total = rng.integers(3, 40, n) * ((codes == 1) if question == "bar" else 1)
        p = np.stack([rng.dirichlet(STRENGTH * shares[k]) for k in codes])
        votes = np.stack([rng.multinomial(t, q) for t, q in zip(total, p, strict=True)])
        known |= {f"{question}_votes_{a}": votes[:, k].astype(float) for k, a in enumerate(ANSWERS[question])}
    for name, rates in RATES.items():
        holds = (rng.random(n) < np.array(rates)[codes]).astype(float)
        known[name] = np.where(rng.random(n) < 0.3, np.nan, holds)
    return codes, pictures(codes, rng, noise), known


def voted(n, seed=0, domain="simulated", sealed=False):
    """The same as records."""
    codes, pixels, known = world(n, seed)
    image = Images(("r", "g", "b"), pixels, np.full((n, 3), np.nan), np.ones((n, 3), np.uint8))
    made = Records.build({}, np.arange(n), known, {"kind": codes}, {"domain": domain}, {"toy_camera": image})
    return made.sealed() if sealed else made


def target_config(folder, target, parameters, **training):
    """An experiment on saved records."""
    path = folder / "voted.zarr"
    if not path.exists():
        voted(600).save(path)
    return Config.model_validate({
        "surveys": [str(camera(folder))], "parameters": parameters,
        "network": {"width": 16, "layers": 1, "heads": 2, "summary": 32, "blocks": 0, "context": 16,
                    "images": {"kind": "compact", "options": {"widths": [8, 16], "blocks": [1, 1]}, "measured": True},
                    "classifier": {"target": target}},
        "training": {"records": str(path), "epochs": 6, "steps_per_epoch": 25, "batch": 32, "validation": 60, "warmup": 5,
                     "learning_rate": 0.005, "optimiser": "adamw", "augmentation": {"rotate": "quarter"}, **training},
    })
