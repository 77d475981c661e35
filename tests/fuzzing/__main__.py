"""`python -m fuzzing run|agent|lines --count N [--seed S]`, in the folder tests/: prints how the trials ended."""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzzing.campaigns import AgentCampaign, LineCampaign, RunCampaign, Tally
from fuzzing.trials import run_job

MEMORY = 12 * 2**30  # bytes of address space, so that what exhausts memory fails here and not elsewhere


def campaign_of(name: str, folder: Path) -> Any:
    """The campaign on a run of the preset `tiny` in this folder, made if it does not exist, and on its agent."""
    run, agent, work = folder / "run", folder / "files" / "it.safetensors", folder / "work"
    work.mkdir(exist_ok=True)
    if not agent.exists():
        for words in (("pipeline", "tiny", "--run", run, "--local"), ("export", "--run", run, "--to", agent)):
            made = run_job(*words, limit=1_000)
            assert made.code == 0, made.stderr + made.trace
    if name == "run":
        return RunCampaign(run, work)
    return AgentCampaign(agent, work) if name == "agent" else LineCampaign(run, agent, work)


def table(name: str, tally: Tally, seconds: float) -> str:
    ends = ", ".join(f"{end} {count}" for end, count in sorted(tally.ends.items()))
    return (
        f"{name}: {tally.trials} trials, {len(tally.broken)} violations; {ends}; slowest {tally.slowest:.1f} s,"
        f" {seconds:.0f} s together"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("campaign", choices=("run", "agent", "lines"))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; each has a seed of its own")
    parser.add_argument("--folder", type=Path, help="keep the run that is damaged here (default: a temporary folder)")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory(prefix="wm-fuzzing-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        campaign, tally, began = campaign_of(options.campaign, folder), Tally(), time.monotonic()
        for seed in range(options.seed, options.seed + options.count):
            known = len(tally.broken)
            campaign.trial(seed, tally)
            for broken in tally.broken[known:]:
                print(broken, flush=True)
    print(table(options.campaign, tally, time.monotonic() - began), flush=True)
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
