"""The tasks, by name."""

from benchmarks.sbibm.tasks.gaussian import GaussianLinear, GaussianLinearUniform, GaussianMixture
from benchmarks.sbibm.tasks.glm import BernoulliGlm
from benchmarks.sbibm.tasks.slcp import Slcp
from benchmarks.sbibm.tasks.task import Task
from benchmarks.sbibm.tasks.two_moons import TwoMoons

__all__ = ["TASKS", "Task"]

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (TwoMoons, GaussianMixture, GaussianLinear, Slcp, GaussianLinearUniform, BernoulliGlm)
}
