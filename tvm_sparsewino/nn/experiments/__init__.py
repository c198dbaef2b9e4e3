"""Training and pruning classifiers, one run or a matrix of them, with a record of each."""

from .matrix import run_matrix
from .reading import read_experiment
from .run import run_experiment
from .settings import Experiment

__all__ = ["Experiment", "read_experiment", "run_experiment", "run_matrix"]
