"""Of two jobs started on a run at the same time, one works and the other exits with an error."""

from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Job

from wm.runs.datasets import own_rollouts
from wm.runs.run import Run, open_existing

ROUNDS = 50


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_one_of_two_simultaneous_jobs_works(
    kind: str, s3: Callable[[str], str], tmp_path: Path, job: Callable[..., Job], tiny: Run
) -> None:
    expected = tiny.stage("collect").complete(4)
    assert expected is not None
    refused = 0
    for number in range(ROUNDS):
        uri = s3("both") if kind == "s3" else str(tmp_path / f"run-{number}")
        both = [job("collect", "tiny", "--run", uri, "--local") for _ in range(2)]
        codes = sorted(one.wait() for one in both)
        late = [one for one in both if "is in use by process" in one.stderr]
        # The second job may also start after the first one has ended.
        assert codes == [0, 2 if late else 0], [one.stderr for one in both]
        assert sum("0/2 shards" in one.stderr for one in both) == 1
        refused += len(late)
        made = open_existing(uri).stage("collect").complete(4)
        assert made is not None
        assert made.digest == expected.digest
        own_rollouts(made).verify()
        assert not open_existing(uri).storage.sizes("lease")
    assert refused > ROUNDS // 2
