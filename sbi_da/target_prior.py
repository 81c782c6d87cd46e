"""Votes or labels of training records as a prior; and what to say where records do not hold what a config asks for."""

from collections.abc import Sequence

from sbi_da.config import Config
from sbi_da.errors import ConfigError
from sbi_da.label_prior import LabelPrior
from sbi_da.records import Records
from sbi_da.vote_prior import VotePrior, vote_column

__all__ = ["answers_of", "sealed_hint", "target_prior"]


def sealed_hint(sealed: bool) -> str:
    """What to add to an error where what is missing is there, but out of sight."""
    return "; they are sealed, as those of real objects are: pack them with `sealed: false` to learn from them" if sealed else ""


def target_prior(config: Config) -> VotePrior | LabelPrior:
    """Of votes or labels, counted in the training records.

    Raises:
        SbiDaError: no records, or no such votes or labels in them.
    """
    target, path, names = config.network.classifier.target, config.training.records, config.parameters
    if not path:
        raise ConfigError(f"config: training.records: {target} are learned from records: give some, as `sbi-da pack` makes them")
    if len(set(names)) != len(names):
        raise ConfigError(f"config: parameters: each once, not {', '.join(names)}")
    records = Records.open(path)
    everything = records.opened().parameters
    if target == "labels":
        lacking = [name for name in names if name not in records.parameters]
        if lacking:
            raise ConfigError(_lacking(path, "label", lacking[0], list(records.parameters), sealed_hint(lacking[0] in everything)))
        return LabelPrior.of_labels(names, records.parameters)
    questions = {name: answers_of(name, list(records.parameters)) for name in names}
    for name, answers in questions.items():
        if not answers:
            hint = sealed_hint(bool(answers_of(name, list(everything))))
            known = sorted({column.rpartition("_votes_")[0] for column in records.parameters if "_votes_" in column})
            raise ConfigError(_lacking(path, "votes on", name, known, hint))
    return VotePrior.of_votes(questions, records.parameters)


def answers_of(question: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Answers to a question among names of parameters."""
    prefix = vote_column(question, "")
    return tuple(column.removeprefix(prefix) for column in columns if column.startswith(prefix))


def _lacking(path: str, kind: str, name: str, known: list[str], hint: str) -> str:
    return f"config: parameters: {path} holds no {kind} {name!r} (known: {', '.join(known) or 'none'}){hint}"
