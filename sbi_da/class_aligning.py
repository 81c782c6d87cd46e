"""Training a classifier on two streams: labelled simulated objects and unlabelled real ones.

Both pass the network in one go. The loss is that of the labelled simulations plus scheduled terms: distribution terms between
features (:mod:`sbi_da.alignment.registry`), terms that see class outputs (:mod:`sbi_da.alignment.class_registry`), and a teacher's:
real objects are taught the class that a running average of the weights is sure of, seen under another transformation (Tarvainen &
Valpola 2017, arXiv 1703.01780; Sohn et al. 2020, arXiv 2001.07685). Simulated objects may be weighted to the class fractions of the
real ones, estimated before every epoch. Labels of real objects have no way in.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from sbi_da.alignment.class_term import Classified
from sbi_da.alignment.features import Features
from sbi_da.alignment.label_shift import label_shift_em, label_weights
from sbi_da.alignment.schedule import Fixed, LearnedWeights, Ramp, Schedule, Scheduler
from sbi_da.alignment_config import AlignmentConfig, TermSpec
from sbi_da.class_alignment_config import ClassTermSpec
from sbi_da.config import TrainingConfig
from sbi_da.epoch_keeping import categorical
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.measured import Batch, measurements, pictures, stacked
from sbi_da.posterior_loss import ClassLoss
from sbi_da.sources import Source
from sbi_da.training import StreamModule, TrainingModule, moved

__all__ = ["ClassAlignmentModule", "TwoStreams"]

COUNTED = 1000
"""Real objects, at most, that class fractions are estimated from before an epoch."""
SHRINK = 0.05
"""Share of the simulated fractions in estimated ones: no class is ruled out before the end."""


class TwoStreams(StreamModule):
    """Batches of simulated and of real objects, each transformed once or twice.

    Args:
        source: labelled simulations.
        validation: held-out ones.
        config: sizes.
        real: unlabelled real objects.
        views: transformed copies of every object.
        seed: of the order of real objects and of the transformations.
        lessons: weights of every class of every real object in a cross-entropy, shape ``(object, class)``; None: none.
        needed: whether real objects are of use at all; otherwise the network, and what it normalises by, does not see them.
    """

    def __init__(
        self, source: Source, validation: Source, config: TrainingConfig, real: Observations, views: int = 1, seed: int = 0,
        lessons: np.ndarray | None = None, needed: bool = True,
    ) -> None:
        super().__init__(source, validation, config, seed)
        self.real, self.views, self.lessons, self.needed = real, views, lessons, needed

    def batches(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """Batches of an epoch: ``simulated`` and ``real``, and ``simulated_again``, ``real_again`` where there are two views."""
        rng = np.random.default_rng([self.seed, 3, epoch])
        how = self.config.augmentation
        plain = StreamModule(self.source, self.validation, self.config.model_copy(update={"augmentation": None}), self.seed)
        order = np.zeros(0, int)
        for step, streams in enumerate(plain.batches(epoch)):
            if not self.needed:
                yield {"simulated": moved(streams["simulated"], how, (self.seed, epoch, step, 0))}
                continue
            size = min(self.config.batch, len(self.real))
            while len(order) < size:
                order = np.concatenate([order, rng.permutation(len(self.real))])
            rows, order = order[:size], order[size:]
            simulated, real = streams["simulated"], measurements(self.real, rows)
            if self.lessons is not None:
                real["lesson"] = torch.from_numpy(self.lessons[rows]).float()
            made = {"simulated": moved(simulated, how, (self.seed, epoch, step, 0)), "real": moved(real, how, (self.seed, epoch, step, 1))}
            if self.views == 2:
                made["simulated_again"] = moved(simulated, how, (self.seed, epoch, step, 2))
                made["real_again"] = moved(real, how, (self.seed, epoch, step, 3))
            yield made


class ClassAlignmentModule(TrainingModule):
    """Optimises a classifier on the streams.

    Args:
        estimator: what is trained.
        config: schedule of the optimiser.
        alignment: the terms.
        real: unlabelled real objects, for the estimates of their class fractions.
        lesson: weight of the loss of real objects whose classes the batches say; 0: they say none.
    """

    def __init__(
        self, estimator: Estimator, config: TrainingConfig, alignment: AlignmentConfig, real: Observations, lesson: float = 0.0
    ) -> None:
        super().__init__(estimator, config, weighted=False)
        self.alignment, self.classes = alignment, alignment.classes
        size = estimator.network
        self.placed = [spec.build(size.context, size.width, len(estimator.surveys)) for spec in alignment.terms]
        self.terms = nn.ModuleList(self.placed)
        self.outer = [spec.build() for spec in self.classes.terms]
        self.class_terms = nn.ModuleList(self.outer)
        specs: list[TermSpec | ClassTermSpec] = [*alignment.terms, *self.classes.terms]
        self.names = [f"{spec.kind}_{k}" for k, spec in enumerate(specs)]
        schedules: dict[str, Schedule] = {name: spec.weight.build() for name, spec in zip(self.names, specs, strict=True)}
        if self.classes.teacher:
            schedules["teacher"] = Ramp(self.classes.teacher, 0.05, 0.3)
        if lesson:
            schedules["lesson"] = Fixed(lesson)
        learned = LearnedWeights("posterior", list(schedules)) if alignment.learned else None
        self.scheduler = Scheduler({"posterior": Fixed(self.classes.supervised), **schedules}, learned)
        kept = self.classes.teacher or self.classes.averaged
        self.average = copy.deepcopy(estimator).requires_grad_(False).eval() if kept else None
        self.teacher = self.average if self.classes.teacher else None
        self.real = real.take(np.sort(np.random.default_rng(0).permutation(len(real))[:COUNTED]))
        self.fractions = estimator.assumed_fractions(corrected=True)
        self._epoch_loss: list[Tensor] = []
        if alignment.train == "adapter":
            for name, parameter in estimator.named_parameters():
                parameter.requires_grad_(name.startswith("adapter."))

    @property
    def progress(self) -> float:
        """Of the training, from 0 to 1."""
        return min(1.0, self.global_step / max(1, self.config.epochs * self.config.steps_per_epoch))

    @property
    def needs_real(self) -> bool:
        """Whether any loss looks at real objects."""
        return len(self.scheduler.schedules) > 1

    @property
    def views(self) -> int:
        """Transformed copies of every object that are needed."""
        return 2 if self.teacher is not None or any(term.views == 2 for term in self.outer) else 1

    def on_train_epoch_start(self) -> None:  # noqa: D102
        self._epoch_loss = []
        if self.alignment.train == "adapter":
            self.estimator.eval()  # running statistics are part of what stays
            if self.estimator.adapter is not None:
                self.estimator.adapter.train()
        if self.classes.reweight:
            self.fractions = self._estimated()

    def on_train_epoch_end(self) -> None:  # noqa: D102
        if self._epoch_loss:
            loss = float(torch.stack(self._epoch_loss).mean())
            for term in self.outer:
                term.epoch_ended(loss)

    def on_train_batch_end(self, *_: object) -> None:
        """Move the average."""
        if self.average is None:
            return
        rate = min(self.classes.momentum, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for old, new in zip(self.average.state_dict().values(), self.estimator.state_dict().values(), strict=True):
                if old.is_floating_point():
                    old.lerp_(new, 1 - rate)
                else:
                    old.copy_(new)

    def _estimated(self) -> np.ndarray:
        """Class fractions of the real objects as the network sees them now, drawn towards those of the simulations."""
        context = self.estimator.encode(self.real, real=True).to(self.device)
        with torch.no_grad():
            p = categorical(self.estimator).probabilities(context).double().cpu().numpy()
        found = label_shift_em(p, self.estimator.assumed_fractions(corrected=False), replicates=2).fractions
        return (1 - SHRINK) * found + SHRINK * self.estimator.assumed_fractions(corrected=True)

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:  # noqa: D102
        names: list[str] = [name for name in ("simulated", "real", "simulated_again", "real_again") if name in batch]
        sizes = [len(batch[name]["state"]) for name in names]
        whole = stacked([batch[name] for name in names])
        device = whole["state"].device
        real = torch.cat([torch.full((size,), name.startswith("real"), device=device) for name, size in zip(names, sizes, strict=True)])
        everything = self.estimator.features(whole["value"], whole["error"], whole["state"], real, pictures(whole))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        of = {n: everything[slice(int(starts[k]), int(starts[k + 1]))] for k, n in enumerate(names)}
        codes = batch["simulated"]["z"][:, 0].long()
        seen = {name: self._classified(features, codes if name.startswith("simulated") else None) for name, features in of.items()}
        weight = self._weights(codes)
        losses = {"posterior": self._supervised(seen, codes)}
        progress = self.progress
        active = set(self.scheduler.active(progress))
        for name, term in zip(self.names, self.placed, strict=False):
            if name in active:
                term.set_progress(progress)
                losses[name] = term(of["simulated"], of["real"], weight=weight)
        again = (seen["simulated_again"], seen["real_again"]) if "real_again" in seen else None
        for name, outer in zip(self.names[len(self.placed) :], self.outer, strict=True):
            if name in active:
                outer.progress = progress
                losses[name] = outer(seen["simulated"], seen["real"], again)
        if "lesson" in active:
            logits = seen["real"].logits.log_softmax(-1)
            losses["lesson"] = -(batch["real"]["lesson"] * logits).sum(1).mean()
        if "teacher" in active:
            losses["teacher"] = self._taught(batch["real"], seen["real_again"])
        total = self.scheduler(losses, progress)
        for name, value in {**losses, "total": total}.items():
            self.log(f"loss_{name}", value.detach())
        self._epoch_loss.append(total.detach())
        return total

    def _classified(self, features: Features, codes: Tensor | None) -> Classified:
        return Classified(features.context, categorical(self.estimator).logits(features.context), codes)

    def _weights(self, codes: Tensor) -> Tensor | None:
        """Of the simulated objects, so that their classes have the fractions of the real ones."""
        if not self.classes.reweight:
            return None
        found = label_weights(codes.cpu().numpy(), self.estimator.assumed_fractions(corrected=True), self.fractions)
        return torch.from_numpy(found).to(codes.device, torch.float32)

    def _supervised(self, seen: dict[str, Classified], codes: Tensor) -> Tensor:
        loss = self.loss
        assert isinstance(loss, ClassLoss)
        each = torch.stack([loss.of_logits(codes, seen[name].logits) for name in seen if name.startswith("simulated")]).mean(0)
        return each.mean()

    def _taught(self, real: Batch, again: Classified) -> Tensor:
        """Cross-entropy of real objects with what the teacher is sure of, by one view each."""
        teacher = self.teacher
        assert teacher is not None
        with torch.no_grad():
            everyone = torch.full((len(real["state"]),), True, device=real["state"].device)
            context = teacher.context(real["value"], real["error"], real["state"], everyone, pictures(real))
            p = categorical(teacher).logits(context).softmax(-1)
            sure, target = p.max(-1)
            kept = (sure >= self.classes.threshold).float()
        surprise = nn.functional.cross_entropy(again.logits, target, reduction="none")
        self.log("taught", kept.mean())
        return (kept * surprise).mean()
