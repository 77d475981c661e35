"""The three campaigns: a finished run, an agent file, command lines. Each trial follows from its seed alone."""

import contextlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzzing.damage import damage_agent, damage_file
from fuzzing.lines import command_line
from fuzzing.trials import Outcome, OutOfTime, run_job
from wm.agents.files import load_agent
from wm.errors import UserError
from wm.experiments.verify import OUTPUTS

VOLATILE = {"seconds", "steps_per_second", "waited_for_data", "bytes", "run", "from", "next"}
# Jobs of a trial on a damaged run, with their weights. `status --check` is run in each trial.
JOBS = {
    ("status",): 20,
    ("pipeline", "--local"): 40,
    ("score", "--local"): 10,
    ("evolve", "--local"): 10,
    ("collect", "--local"): 5,
    ("memory", "--local"): 5,
    ("export", "--to", "AGENT"): 8,
    ("score", "--local", "--episodes", "3"): 2,
    ("report",): 1,
}


@dataclass
class Tally:
    """What the trials of a campaign ended in."""

    trials: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)  # trials that violate the rule
    slowest: float = 0.0

    def add(self, name: str, broken: str, end: str, seconds: float = 0.0, details: str = "") -> None:
        self.trials += 1
        self.ends[broken or end] += 1
        self.slowest = max(self.slowest, seconds)
        if broken:
            self.broken.append(f"{name}: {broken}\n{details}")


def lasting(summary: Any) -> Any:
    """A job's summary without what differs between two undisturbed jobs."""
    if isinstance(summary, dict):
        return {name: lasting(value) for name, value in summary.items() if name not in VOLATILE}
    return [lasting(value) for value in summary] if isinstance(summary, list) else summary


class RunCampaign:
    """Damages one file of a copy of a finished run, then runs `status --check` and another job."""

    def __init__(self, run: Path, folder: Path):
        self.run, self.folder = run, folder
        self.expected: dict[tuple[str, ...], Any] = {}
        with self._copy() as copy:
            self._check(run_job("status", "--run", copy, "--check"))

    def _check(self, outcome: Outcome) -> Outcome:
        assert (outcome.code, outcome.hung) == (0, False), f"{outcome}\n{outcome.stderr}{outcome.trace}"
        return outcome

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        """A copy at the same path each time, of hard links: no job changes a file in place."""
        copy = self.folder / "copy"
        shutil.copytree(self.run, copy, copy_function=os.link, ignore=shutil.ignore_patterns("std*", "*.html"))
        try:
            yield copy
        finally:
            shutil.rmtree(copy)
            for made in self.folder.glob("agent*"):
                made.unlink()

    def _words(self, job: tuple[str, ...], copy: Path) -> list[str]:
        to = str(self.folder / "agent.safetensors")
        return [job[0], "--run", str(copy), *(to if word == "AGENT" else word for word in job[1:])]

    def _summary(self, job: tuple[str, ...]) -> Any:
        """The summary of this job on the undamaged run."""
        if job not in self.expected:
            with self._copy() as copy:
                self.expected[job] = lasting(self._check(run_job(*self._words(job, copy))).summary)
        return self.expected[job]

    def trial(self, seed: int, tally: Tally) -> None:
        rng = random.Random(f"run {seed}")
        job = rng.choices(list(JOBS), list(JOBS.values()))[0]
        expected = self._summary(job)
        with self._copy() as copy:
            files = sorted(path for path in copy.rglob("*") if path.is_file())
            # Each file of JSON twice, since it has more ways to be wrong.
            path = rng.choice(files + [file for file in files if file.suffix in (".json", ".jsonl")])
            key = path.relative_to(copy).as_posix()
            before = path.read_bytes()
            what = damage_file(path, files, rng, copy)
            name = f"run {seed}: {key} {what}"
            after = path.read_bytes() if path.is_file() else None
            checked = run_job("status", "--run", copy, "--check")
            outcome = run_job(*self._words(job, copy))
            details = f"{' '.join(self._words(job, copy))}\n{outcome.stderr}{outcome.trace}"
            broken = checked.broken_rule(lines=1_000) or outcome.broken_rule()
            if checked.broken_rule(lines=1_000):
                details = f"status --check\n{checked.stderr}{checked.trace}"
            resealed = "new seal" in what
            # That a file is missing shows as work that is left to do.
            told = after is None and job == ("status",) and outcome.code == 0 and outcome.summary["next"] is not None
            if not broken and outcome.code == 0 and not resealed and not told:
                broken = "" if lasting(outcome.summary) == expected else "silent change"
            same = path.suffix in (".json", ".jsonl") and after is not None and before.strip() == after.strip()
            changed = after not in (None, before) and not same
            if not broken and changed and not resealed and not OUTPUTS.fullmatch(key) and checked.code == 0:
                broken, details = "not found by --check", checked.stderr
        tally.add(name, broken, f"exit {outcome.code}", max(checked.seconds, outcome.seconds), details)


class AgentCampaign:
    """Damages an agent file and loads, plays and dreams what is left of it."""

    def __init__(self, agent: Path, folder: Path):
        self.data, self.folder = agent.read_bytes(), folder
        self.decoder = agent.with_name(f"{agent.stem}-decoder.safetensors").read_bytes()
        self.expected = self._played()

    def _played(self, data: bytes | None = None, decoder: bytes | None = None) -> dict[str, Any]:
        """Everything that a loaded agent is and does."""
        path = self.folder / "it.safetensors"
        path.write_bytes(self.data if data is None else data)
        path.with_name("it-decoder.safetensors").write_bytes(self.decoder if decoder is None else decoder)
        agent = load_agent(str(path))
        frames = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
        action = agent.agent(2).act(frames, np.arange(2))
        found: dict[str, Any] = {"action": action.tolist(), "theta": agent.theta.tolist()}
        if agent.starts is not None:
            found["start"] = agent.world(steps=3).begin(np.random.default_rng(1)).tolist()
        if agent.decodes:
            found["decoded"] = agent.vision.decode(torch.zeros(1, agent.vision.z)).sum().item()
        return found | {"config": agent.config, "card": agent.card}

    def trial(self, seed: int, tally: Tally) -> None:
        rng = random.Random(f"agent {seed}")
        in_decoder = rng.random() < 0.15
        damaged, what, resealed = damage_agent(self.decoder if in_decoder else self.data, rng)
        name = f"agent {seed}: {'decoder: ' if in_decoder else ''}{what}"
        broken, end, details = "", "refused", ""
        try:
            found = self._played(decoder=damaged) if in_decoder else self._played(damaged)
            end = "same agent"
            if found != self.expected:
                end = "another agent, with a seal of its own"
                if not resealed or in_decoder:
                    broken = "silent change"
        except UserError as error:
            details = str(error)
            broken = "" if len(str(error).splitlines()) == 1 else "several lines"
        except (Exception, OutOfTime) as error:
            broken, details = "traceback", repr(error)[:500]
        tally.add(name, broken, end, 0.0, details)


class LineCampaign:
    """Odd command lines. A job that accepts one is interrupted at its first progress report."""

    def __init__(self, run: Path, agent: Path, folder: Path):
        self.run, self.agent, self.folder = run, agent, folder

    def trial(self, seed: int, tally: Tally) -> None:
        rng = random.Random(f"line {seed}")
        place = self.folder / "place"
        place.mkdir()
        shutil.copytree(self.run, place / "finished", copy_function=os.link, ignore=shutil.ignore_patterns("std*"))
        (place / "file").write_text("")
        job, words = command_line(
            rng,
            {
                "RUN": place / "new",
                "FINISHED": place / "finished",
                "FILE": place / "file",
                "AGENT": self.agent,
                "PLACE": place,
            },
        )
        at = rng.choice([1, 1, 1, 2])
        before = Path.cwd()
        os.chdir(place)  # where relative paths lead
        try:
            outcome = run_job(job, *words, interrupt_at=at)
        finally:
            os.chdir(before)
            shutil.rmtree(place)
        name = f"line {seed}: {job} {' '.join(word if len(word) < 60 else word[:57] + '...' for word in words)}"
        tally.add(name, outcome.broken_rule(), f"exit {outcome.code}", outcome.seconds, outcome.stderr + outcome.trace)
