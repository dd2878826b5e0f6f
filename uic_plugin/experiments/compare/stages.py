"""The stages of a comparison: timing, trials, the runs that are reported, a repetition.

Each stage plans its commands from the files that the one before has left, runs those that are
missing, and says which have failed: a comparison that was stopped resumes where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from uic_plugin.experiments.compare.budget import Length
from uic_plugin.experiments.compare.lengths import (
    calibration,
    length_of_budget,
    length_of_minutes,
)
from uic_plugin.experiments.compare.plan import Entry, PlannedRun, Setting, is_trained, plan_run
from uic_plugin.experiments.compare.tune import (
    HELD_OUT,
    SHARE,
    Trial,
    best_trial,
    trials_of,
    tuning_seed,
)
from uic_plugin.experiments.jobs import Job, reason_of, run_jobs


@dataclass(frozen=True)
class Tuned:
    """What tuning has found.

    Attributes:
        trials: all settings of all lines.
        runs: those that could be planned.
        best: the best trial of each line, by its label.
        failed: label of a line without one to the reason.
        reasons: name of a failed command to the reason.
    """

    trials: list[Trial] = field(default_factory=list)
    runs: dict[Trial, PlannedRun] = field(default_factory=dict)
    best: dict[str, Trial] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def plan_trials(
    setting: Setting, entries: Sequence[Entry], count: int, seeds: Sequence[int]
) -> tuple[Setting, list[Trial]]:
    """Return what the trials share, and all of them.

    Raises:
        ValueError: for a method without enough settings, or where the images that would choose
            among settings are those that are reported on.
    """
    if setting.held_out:
        raise ValueError(
            f"--tune {count} with --held-out {setting.held_out:g}: the same training images would "
            f"choose the settings and judge the winner; leave out --held-out, so that trials hold "
            f"out a tenth and test images judge, or leave out --tune and give settings as lines of "
            f"--variants"
        )
    budget = setting.budget.scaled(SHARE)
    few = dataclasses.replace(setting, budget=budget, held_out=HELD_OUT, is_brief=True)
    seed = tuning_seed(seeds)
    trained = [entry for entry in entries if is_trained(entry)]
    return few, [trial for entry in trained for trial in trials_of(few, entry, count, seed)]


def tune(
    setting: Setting, entries: Sequence[Entry], count: int, seeds: Sequence[int], console: Console
) -> Tuned:
    """Run the missing trials and find the best setting of each line."""
    few, trials = plan_trials(setting, entries, count, seeds)
    found = Tuned(trials)
    lengths: dict[Trial, Length] = {}
    early = calibrate(few, [trial.entry for trial in trials], console)
    for trial in trials:
        try:
            if trial.entry in early:
                raise ValueError(early[trial.entry])
            lengths[trial] = _length(few, trial.entry, tuning_seed(seeds), console)
        except ValueError as error:
            found.reasons[_name(trial)] = str(error)
    for trial, length in lengths.items():
        found.runs[trial] = plan_run(few, trial.entry, tuning_seed(seeds), length)
    jobs = [job for run in found.runs.values() for job in run.jobs]
    found.reasons.update(run_missing(few, jobs, console, f"{len(trials)} trials, {few.budget}: "))
    for entry in dict.fromkeys(trial.line for trial in trials):
        own = [trial for trial in trials if trial.line == entry]
        best = best_trial(own, found.runs)
        if best is not None:
            found.best[entry.label] = best
            continue
        reasons = [reason_of_trial(found, trial) for trial in own]
        found.failed[entry.label] = f"all trials have failed: {reasons[0]}"
    return found


def reason_of_trial(found: Tuned, trial: Trial) -> str:
    """Return why a trial has failed, empty if it has not."""
    names = [_name(trial)]
    if trial in found.runs:
        names += [job.name for job in found.runs[trial].jobs]
    return next((found.reasons[name] for name in names if name in found.reasons), "")


def _name(trial: Trial) -> str:
    return f"trial {trial.line.label} {trial.number}"


def calibrate(setting: Setting, entries: Sequence[Entry], console: Console) -> dict[Entry, str]:
    """Time a step and an epoch of each setting, where the budget is in minutes.

    Returns:
        Why those failed that did.
    """
    if setting.budget.kind != "minutes":
        return {}
    jobs = {entry: calibration(setting, entry) for entry in entries if is_trained(entry)}
    failed = run_missing(setting, list(jobs.values()), console, "timing: ")
    return {e: f"calibration: {failed[j.name]}" for e, j in jobs.items() if j.name in failed}


def plan_reported(
    setting: Setting,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    console: Console,
) -> tuple[list[PlannedRun], dict[str, str]]:
    """Return the runs that are reported, once their settings are timed where minutes need that.

    Returns:
        The runs, and why those lines could not be planned that could not, by label.
    """
    untimed = calibrate(setting, entries, console)
    runs, early = [], {entry.label: why for entry, why in untimed.items()}
    for entry in entries:
        if entry in untimed:
            continue
        try:
            length = _length(setting, entry, seeds[0], console)
        except ValueError as error:
            early[entry.label] = str(error)
            continue
        runs += [plan_run(setting, entry, seed, length) for seed in seeds]
    return runs, early


def _length(setting: Setting, entry: Entry, seed: int, console: Console) -> Length:
    if not is_trained(entry):
        return Length(1)
    length = length_of_budget(setting, entry, seed, console.print)
    return length or length_of_minutes(setting, entry)


def run_missing(
    setting: Setting, jobs: Sequence[Job], console: Console, title: str = ""
) -> dict[str, str]:
    """Run those commands that are not done yet, equal ones once; return why those failed that did.

    Returns:
        Names of failed commands to the reasons.
    """
    jobs = list({job.name: job for job in jobs}.values())
    todo = [job for job in jobs if not job.is_done()]
    console.print(f"{title}{len(jobs)} commands, {len(jobs) - len(todo)} of them done already")
    failed = run_jobs(todo, setting.parallel, console.print, one_core=setting.one_core)
    return {name: reason_of(log) if log.exists() else "not started" for name, log in failed.items()}
