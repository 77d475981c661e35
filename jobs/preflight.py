"""Check AWS prerequisites before `ray up`: `python -m jobs.preflight ray_cluster.yaml`."""

import sys
from collections.abc import Callable
from importlib.util import find_spec

from cluster.aws import plan as files
from cluster.aws.account import Account
from jobs.parser import Parser
from jobs.runner import guard
from wm.errors import UserError

Check = tuple[str, Callable[[], str]]


def preflight(path: str) -> dict[str, object]:
    """Run all checks, even if some fail. Checks that call AWS are skipped without credentials."""
    if find_spec("boto3") is None:
        raise UserError("boto3 is missing: pip install 'world-models-ray[aws]'")
    plan = files.read(path)
    checks = _run([("file", lambda: files.valid_for_ray(plan))])
    if "file" in checks["failed"]:
        return _summary(path, checks)
    checks = _run(
        [
            ("filled", lambda: files.filled(plan)),
            ("node_config", lambda: files.valid_for_ec2(plan)),
            ("key_file", lambda: files.key_file(plan)),
            ("token", lambda: files.token(plan)),
            ("region", lambda: files.region(plan)),
        ],
        checks,
    )
    if "region" in checks["failed"]:
        return _summary(path, checks)
    account = Account(plan)
    checks = _run([("credentials", account.credentials)], checks)
    if "credentials" not in checks["failed"]:
        names = ("key_pair", "security_group", "profiles", "machine_image", "instance_types", "quotas")
        checks = _run([(name, getattr(account, name)) for name in (*names, "images", "bucket")], checks)
    return _summary(path, checks)


def _run(checks: list[Check], before: dict[str, dict[str, str]] | None = None) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = before or {"ok": {}, "failed": {}}
    for name, check in checks:
        try:
            found["ok"][name] = check()
            print(f"ok    {name}: {found['ok'][name]}", file=sys.stderr)
        except UserError as error:
            found["failed"][name] = str(error)
            print(f"FAIL  {name}: {error}", file=sys.stderr)
    return found


def _summary(path: str, checks: dict[str, dict[str, str]]) -> dict[str, object]:
    return {"job": "preflight", "file": path, "ready": not checks["failed"], **checks}


def main(path: str) -> int:
    found: dict[str, object] = {}

    def job() -> dict[str, object]:
        found.update(preflight(path))
        return found

    code = guard(job)
    return 2 if found.get("failed") else code


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.preflight", description=__doc__)
    parser.add_argument(
        "file", nargs="?", default="ray_cluster.yaml", help="the Ray cluster config (default: ray_cluster.yaml)"
    )
    sys.exit(main(parser.parse_args().file))
