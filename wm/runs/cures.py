"""What to do about a damaged file of a run: what to delete, and the command that makes it again."""

from wm.runs.storage import Storage

AGENT_FILE = "agent.json"  # in a run that was unpacked from an agent file: the agent's digest and card


def remake(storage: Storage, stage: str, what: str = "delete it") -> str:
    """The cure for a file of this stage."""
    if stage != "score" and storage.get(AGENT_FILE) is not None:
        command = f"python -m jobs.unpack --agent AGENT --run {storage.uri}"
    else:
        command = f"python -m jobs.{stage} --run {storage.uri}"
    with_agent = " (with --agent, if it scored an agent file)" if stage == "score" else ""
    return f"{what} and run `{command}` again{with_agent}"


def restart(uri: str) -> str:
    """The cure for a config."""
    return (
        f"delete it and start the run again with the same preset and flags, `python -m jobs.pipeline PRESET --run"
        f" {uri}`, which keeps completed stages"
    )
