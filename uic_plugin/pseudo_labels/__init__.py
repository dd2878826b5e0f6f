"""Labels without annotations: the bank, the fixer of empty classes, the sampler, telemetry.

It needs torch and numpy alone; telemetry takes NMI from scikit-learn when it is asked for.
"""

from uic_plugin.pseudo_labels.bank import EpochBoundary, PseudoLabelBank
from uic_plugin.pseudo_labels.empty_classes import EmptyClassFixer
from uic_plugin.pseudo_labels.sampler import (
    BankSampler,
    ClassBalancedSampler,
    Draw,
    ShuffledSampler,
)
from uic_plugin.pseudo_labels.step_labels import StepLabels, StepTelemetry
from uic_plugin.pseudo_labels.storage import LabelStore
from uic_plugin.pseudo_labels.telemetry import EpochTelemetry, nmi, purity

__all__ = [
    "BankSampler",
    "ClassBalancedSampler",
    "Draw",
    "EmptyClassFixer",
    "EpochBoundary",
    "EpochTelemetry",
    "LabelStore",
    "PseudoLabelBank",
    "ShuffledSampler",
    "StepLabels",
    "StepTelemetry",
    "nmi",
    "purity",
]
