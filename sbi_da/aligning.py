"""Training on three streams: simulated objects, unlabelled real ones, and labelled real ones with simulated twins.

All objects of a step pass the network in one go, the real ones through their branch, and gradients flow to both sides. Objects of a
corrected simulator stand for real ones and take their branch too. The loss is that of the simulated posterior plus the scheduled
terms of the alignment.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sbi_da.alignment.features import Features
from sbi_da.alignment.placed import PlacedTerm
from sbi_da.alignment.schedule import Fixed, LearnedWeights, Scheduler
from sbi_da.alignment_config import AlignmentConfig, PairSpec, TermSpec
from sbi_da.config import TrainingConfig
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.measured import Batch, measurements, pictures, stacked
from sbi_da.sources import PopulationWeights, Source
from sbi_da.training import StreamModule, TrainingModule, tensors

__all__ = ["AlignmentModule", "Paired", "ThreeStreams"]

LEVEL_EPOCH = 2**31 + 2
"""Epoch of the source whose examples the level is first learned from."""


@dataclass(frozen=True)
class Paired:
    """Labelled real objects and their simulated twins.

    Attributes:
        real: what was measured of them.
        twin: the same objects simulated, with the same channels; shape ``(object * twins, channel)``, twins of an object together;
            None: they have none.
        z: draws of the normal scores of their parameters, shape ``(object, draw, parameter)``.
        twins: twins per object.
    """

    real: Observations
    twin: Observations | None
    z: np.ndarray
    twins: int = 1

    def __len__(self) -> int:
        return len(self.z)


class ThreeStreams(StreamModule):
    """Adds real and paired objects to the batches of a simulated stream.

    Args:
        source: simulated training examples.
        validation: held-out simulated ones.
        config: sizes.
        real: unlabelled real objects; None: none.
        paired: labelled ones; None: none.
        weights: population of real objects over the simulated one, of normal scores ``(object, parameter)``; None: they are the same.
            Objects that come from a proposal are weighted back to the prior in any case.
        twins: simulated twins of a labelled object in a step.
        seed: which real objects come in which step.
    """

    def __init__(
        self, source: Source, validation: Source, config: TrainingConfig, real: Observations | None = None,
        paired: Paired | None = None, weights: PopulationWeights | None = None, twins: int = 1, seed: int = 0,
    ) -> None:
        super().__init__(source, validation, config)
        self.real, self.paired, self.weights = real, paired, weights
        self.twins, self.seed = twins, seed

    def batches(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """Batches of an epoch."""
        rng = np.random.default_rng([self.seed, 3, epoch])
        for streams in super().batches(epoch):
            simulated = streams["simulated"]
            if self.source.weighted:
                simulated["population"] = simulated["weight"]
            if self.weights is not None:
                found = torch.from_numpy(self.weights(simulated["z"].numpy())).float()
                simulated["population"] = found * simulated.get("population", 1.0)
            if self.real is not None:
                size = min(self.config.batch, len(self.real))
                streams["real"] = measurements(self.real, rng.choice(len(self.real), size, replace=False))
            if self.paired is not None:
                size = min(self.config.batch // 2, len(self.paired))
                rows = rng.choice(len(self.paired), size, replace=False)
                z = self.paired.z[rows, rng.integers(self.paired.z.shape[1], size=size)]
                streams["paired"] = {**measurements(self.paired.real, rows), "z": torch.from_numpy(z).float()}
                if self.paired.twin is not None:
                    order = rng.permuted(np.tile(np.arange(self.paired.twins), (size, 1)), axis=1)[:, : self.twins]
                    streams["twin"] = measurements(self.paired.twin, (rows[:, None] * self.paired.twins + order).ravel())
            yield streams


class AlignmentModule(TrainingModule):
    """Optimises an estimator on the three streams.

    Args:
        estimator: what is trained.
        config: schedule of the optimiser.
        weighted: whether simulated examples carry weights.
        alignment: the terms.
    """

    def __init__(self, estimator: Estimator, config: TrainingConfig, weighted: bool, alignment: AlignmentConfig) -> None:
        super().__init__(estimator, config, weighted)
        self.alignment = alignment
        size = estimator.network
        self.placed = [spec.build(size.context, size.width, len(estimator.surveys)) for spec in alignment.terms]
        self.terms = nn.ModuleList(self.placed)
        self.pairs = nn.ModuleList(spec.build() for spec in alignment.pairs)
        specs: list[TermSpec | PairSpec] = [*alignment.terms, *alignment.pairs]
        self.names = [f"{spec.kind}_{k}" for k, spec in enumerate(specs)]
        schedules = {name: spec.weight.build() for name, spec in zip(self.names, specs, strict=True)}
        if alignment.labelled is not None:
            schedules["labelled"] = alignment.labelled.build()
        learned = LearnedWeights("posterior", list(schedules)) if alignment.learned else None
        if learned:
            schedules = {"posterior": Fixed(1.0), **schedules}
        self.scheduler = Scheduler(schedules, learned) if schedules else None
        if alignment.train == "adapter":
            for name, parameter in estimator.named_parameters():
                parameter.requires_grad_(name.startswith("adapter."))

    def learn_level(self, source: Source, count: int = 30_000, steps: int = 600) -> None:
        """Regress the weights of simulated examples on contexts before anything moves.

        A posterior that is already good must not be taught with the raw weights that the level is there to tame.
        """
        if self.level is None:
            return
        batch = tensors(source.examples(count, LEVEL_EPOCH))
        with torch.no_grad():
            pieces = [
                self.estimator.context(
                    batch["value"][rows], batch["error"][rows], batch["state"][rows],
                    images={k: (pixels[rows], seen[rows]) for k, (pixels, seen) in pictures(batch).items()},
                )
                for rows in torch.arange(len(batch["z"])).split(4096)
            ]
        context, weight = self.estimator.told.fused(torch.cat(pieces)), batch["weight"]
        optimizer = torch.optim.Adam(self.level.parameters(), 3e-3)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 - step / steps)
            rows = torch.randint(len(context), (1024,))
            level = self.level(context[rows])[:, 0].clamp(-12, 4)
            optimizer.zero_grad()
            (level.exp() - weight[rows] * level).mean().backward()
            optimizer.step()

    @property
    def progress(self) -> float:
        """Of the training, from 0 to 1."""
        total = self.config.epochs * self.config.steps_per_epoch
        return min(1.0, self.global_step / max(1, total))

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:  # noqa: D102
        names = list(batch)
        whole = stacked([batch[name] for name in names])
        through = {"real", "paired", *(["simulated", "twin"] if self.alignment.correction else [])}
        real = torch.cat([torch.full((len(batch[n]["state"]),), n in through) for n in names])
        everything = self.estimator.features(whole["value"], whole["error"], whole["state"], real.to(self.device), pictures(whole))
        sizes = [len(batch[n]["state"]) for n in names]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        of = {n: everything[slice(int(starts[k]), int(starts[k + 1]))] for k, n in enumerate(names)}
        self.loss.step = self.global_step
        posed, told = self.loss.posed(batch["simulated"]), of["simulated"].told
        if posed is not batch["simulated"]:  # what the head is asked is kept from the encoder, but not from the terms
            side = torch.full((len(posed["state"]),), "simulated" in through, device=self.device)
            told = self.estimator.context(posed["value"], posed["error"], posed["state"], side, pictures(posed))
        loss = self.posterior_loss(posed, told)
        if self.scheduler is None:
            return loss
        progress, losses = self.progress, {}
        active = set(self.scheduler.active(progress))
        for name, term in zip(self.names, self.placed, strict=False):
            if name in active:
                term.set_progress(progress)
                losses[name] = self._distribution(term, of, batch["simulated"].get("population"))
        for name, pair in zip(self.names[len(self.placed) :], self.pairs, strict=True):
            if name in active:
                twins = of["twin"].context.unflatten(0, (len(of["paired"]), -1))
                losses[name] = pair(twins if pair.several else twins[:, 0], of["paired"].context)
        if "labelled" in active:
            losses["labelled"] = self.loss(batch["paired"], of["paired"].told).mean()
        for name, value in losses.items():
            self.log(f"loss_{name}", value.detach())
        if self.alignment.learned:
            return self.scheduler({"posterior": loss, **losses}, progress)
        return loss + self.scheduler(losses, progress) if losses else loss

    def _distribution(self, term: PlacedTerm, of: dict[str, Features], weight: Tensor | None) -> Tensor:
        """A term between simulated and real objects; labelled ones and their first twins join them where it uses matches."""
        simulated, real, matches = of["simulated"], of["real"], None
        if "matches" in term.uses and "paired" in of:
            pairs = len(of["paired"])
            first = of["twin"][torch.arange(pairs) * (len(of["twin"]) // pairs)]
            row = torch.arange(pairs, device=simulated.context.device)
            matches = torch.stack([len(simulated) + row, len(real) + row], 1)
            if weight is not None:
                weight = torch.cat([weight, weight.new_full((pairs,), float(weight.mean()))])
            simulated, real = simulated.joined(first), real.joined(of["paired"])
        value: Tensor = term(simulated, real, weight=weight, matches=matches)
        return value
