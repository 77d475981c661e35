"""A run: a place that holds the frozen config, what each stage made, and the manifests that vouch for it.

    config.json, config-0001.json    the config; a later one has other extents, nothing else
    collect/manifest-0000000160.json what 160 episodes are made of, with hashes
    collect/...                      the data itself, committed before the manifest that names it
    latents/3f0c91a2b7d4/...         a stage that only makes sense with what it was made from has that in its path
    .../seconds.json                 how long a stage has taken so far, in all jobs that were at it

A stage is complete when a manifest says so, and only then.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wm.config import fields
from wm.config.schema import FORMAT, Config, completed
from wm.errors import UserError
from wm.pool import Progress
from wm.runs import storage as places
from wm.runs.clock import Clock
from wm.runs.provenance import _compare, circumstances
from wm.runs.storage import Storage, sha256, to_json

log = logging.getLogger(__name__)

STAGE_OF = {  # how far a stage goes
    "collect.episodes": "collect",
    "vision.steps": "vision",
    "memory.steps": "memory",
    "evolve.generations": "evolve",
    "score.episodes": "score",
}


def number_in(key: str, kind: str) -> int:
    """How far the file of this name goes, if it is a manifest ("manifest") or a checkpoint ("step"); else 0."""
    found = re.search(rf"/{kind}-(\d{{10}})[-.]", key)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class Manifest:
    """What a stage made, from what, how; `extent` says how far it went."""

    stage: str
    extent: int
    config: dict[str, Any]  # the frozen fields that decide its content
    inputs: dict[str, str]  # stage -> digest
    content: dict[str, Any]  # keys and hashes of what was made
    metrics: dict[str, Any]
    made: dict[str, Any]  # by which versions, on what, when, in how many seconds
    storage: Storage = field(compare=False, repr=False)  # of the run that made it: this one or a base
    digest: str = field(default="", compare=False)  # of stage and content alone: the same work gives the same digest

    def read(self, key: str) -> bytes:
        """A file that the manifest names, checked against its hash."""
        data = self.storage.get(key)
        expected = self.content["files"][key]
        if data is None or sha256(data) != expected:
            state = "is missing" if data is None else "is damaged"
            raise UserError(
                f"{self.storage.uri}/{key} {state}: copy it back, or remove the stage's folder and make it again"
            )
        return data


MADE_OF = {"latents": "collect", "memory": "latents"}  # what decides them and is not named in their path


class Stage:
    """One stage's corner of a run. What is not here but complete in a base, with the same config, counts too."""

    def __init__(self, run: "Run", name: str, of: str | None):
        self.run, self.name, self.of = run, name, of
        self.folder = f"{name}/{of[:12]}" if of else name
        self.config = run.decides(name)
        self.clock: Clock | None = None

    def begin(self) -> None:
        """From here on its time counts."""
        self.clock = Clock(self.run.storage, self.key("seconds.json"))

    def tell(self, progress: Progress) -> None:
        self.run.tell(progress)
        if self.clock:
            self.clock.tick()

    def key(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def manifest(self, extent: int | None = None) -> Manifest | None:
        """The furthest manifest, or the one of this extent."""
        run: Run | None = self.run
        while run is not None:
            found = [key for key in run.storage.sizes(self.folder) if key.startswith(self.key("manifest-"))]
            if extent is not None:
                found = [key for key in found if key.endswith(f"-{extent:010d}.json")]
            for key in reversed(found):
                manifest = self._load(run.storage, key)
                if manifest.config == self.config and (run is self.run or self._made_of_ours(manifest)):
                    _compare(manifest.made.get("code"), manifest.made.get("processor"))
                    return manifest
            run = run.base
        return None

    def _made_of_ours(self, lent: Manifest) -> bool:
        """Whether a base made this of the rollouts that count here: where V is the same, they need not be."""
        if self.name not in MADE_OF:
            return True
        source = "collect" if "agent" in lent.inputs else MADE_OF[self.name]
        ours = self.run.stage(source, self.of if source == "latents" else None).manifest()
        if ours is None:
            return False
        if "agent" in lent.inputs:  # it came as an agent's file: all its stages say so, and nothing else
            return ours.inputs == lent.inputs
        return lent.inputs.get(source) == ours.digest

    def complete(self, extent: int) -> Manifest | None:
        """The manifest that says that the stage got at least so far."""
        manifest = self.manifest()
        return manifest if manifest and manifest.extent >= extent else None

    def commit(
        self,
        extent: int,
        *,
        inputs: dict[str, str],
        content: dict[str, Any],
        metrics: dict[str, Any],
    ) -> Manifest:
        """Declare the stage complete so far. All that `content` names has been written before."""
        values = {
            "format": FORMAT,
            "stage": self.name,
            "extent": extent,
            "config": self.config,
            "inputs": inputs,
            "content": content,
            "metrics": metrics,
            "made": {
                **circumstances(),
                "cpus": self.run.cpus,
                "seconds": self.clock.note() if self.clock else 0.0,  # what is taken over costs none
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        }
        key = self.key(f"manifest-{extent:010d}.json")
        if not self.run.storage.put_new(key, to_json(values)):
            log.warning("%s was completed by another job meanwhile; its result stands", key)
        return self._load(self.run.storage, key)

    def _load(self, storage: Storage, key: str) -> Manifest:
        data = storage.get(key)
        assert data is not None, key
        try:
            values = json.loads(data)
            if values.pop("format") != FORMAT:
                raise UserError(f"{storage.uri}/{key} was made by another version of this project: use that version")
            digest = sha256(to_json([values["stage"], values["content"]]))
            return Manifest(**values | {"config": completed(values["config"])}, storage=storage, digest=digest)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{storage.uri}/{key} is no manifest of ours: remove it and give the same command again"
            ) from None


class Run:
    """An open run. `tell` is called with every Progress of its stages."""

    def __init__(
        self,
        storage: Storage,
        config: Config,
        preset: str,
        base: "Run | None" = None,
        revision: int = 0,
        tell: Callable[[Progress], None] = lambda progress: None,
    ):
        self.storage, self.config, self.preset, self.base = storage, config, preset, base
        self.revision, self.tell = revision, tell  # how often its extents have changed
        self.cpus = 0  # held for its stages, once a job says so

    @property
    def uri(self) -> str:
        return self.storage.uri

    def done(self) -> dict[str, int]:
        """The least that each extent may be set to: what is complete; of more, one step further than it has got."""
        least = {}
        for extent, stage in STAGE_OF.items():
            keys = self.storage.sizes(stage)
            complete, begun = (max((number_in(key, kind) for key in keys), default=0) for kind in ("manifest", "step"))
            least[extent] = begun + 1 if begun > complete else complete
        return least

    def stage(self, name: str, of: str | None = None) -> Stage:
        """The stage of that name, made `of` the thing with that digest."""
        return Stage(self, name, of)

    def decides(self, name: str) -> dict[str, Any]:
        """The frozen fields that decide what a stage makes: the run's own and those of its sections.

        What a later stage is made of is named in its path; V's rollouts are not, so they count here.
        """
        sections = {"vision": ("collect", "vision"), "evolve": ("controller", "evolve")}.get(name, (name,))
        return {
            path: value
            for path, value in fields.of_kind(self.config, "bits").items()
            if "." not in path or path.partition(".")[0] in sections
        }

    def need(self, name: str, extent: int, job: str, of: str | None = None) -> Manifest:
        """The stage's manifest, or the Mistake that names the job which completes it."""
        manifest, command = self.stage(name, of).manifest(), f"python -m jobs.{job} --run {self.uri}"
        if manifest is None:
            raise UserError(f"no complete {name} in {self.uri}: run `{command}`")
        if manifest.extent < extent:
            flag = next((flag for flag, stage in STAGE_OF.items() if stage == name), None)
            sooner = f", with a smaller --{flag} to be done sooner" if flag else ""
            raise UserError(
                f"no complete {name} in {self.uri}, only {manifest.extent:,} of {extent:,}: run `{command}`{sooner}"
            )
        return manifest


def open_run(uri: str) -> Run | None:
    """The run at that place, or None where there is none."""
    storage = places.at(uri)
    try:
        found = [key for key in storage.sizes() if re.fullmatch(r"config(-\d+)?\.json", key)]
        newest = max(found, key=lambda key: (key != "config.json", key), default=None)
        data = storage.get(newest) if newest else None
    except OSError as error:
        raise UserError(f"can't read {uri}: {str(error).splitlines()[0]}") from None
    if newest is None or data is None:
        return None
    try:
        values = json.loads(data)
        version, preset, base = (values[name] for name in ("format", "preset", "base"))
        config = values["config"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{storage.uri}/{newest} is no config of ours: copy it back, or start another run") from None
    if version != FORMAT:
        raise UserError(f"{uri} was made by another version of this project (format {version}): use that version")
    revision = int(newest.removesuffix(".json").partition("-")[2] or 0)
    return Run(storage, fields.from_dict(config, Config), preset, open_existing(base) if base else None, revision)


def open_existing(uri: str) -> Run:
    run = open_run(uri)
    if run is None:
        raise UserError(f"no run in {uri}: start one with `python -m jobs.pipeline PRESET --run {uri}`")
    return run


def start_run(uri: str, preset: str, config: Config, base: str | None = None) -> Run:
    """A new run with that config frozen, or the one that is there taken further with it."""
    config.check()
    run = open_run(uri)
    if run is None:
        base = open_existing(base).uri if base is not None else None
        # If another job is first, its config is judged below.
        places.at(uri).put_new("config.json", _frozen(preset, base, config))
        run = open_existing(uri)
    if base is not None and (run.base is None or places.at(base).uri != run.base.uri):
        raise UserError(
            f"{uri} was started {f'with --base {run.base.uri}' if run.base else 'without --base'}: start another run"
        )
    before, run.config = run.config, fields.grown(run.config, config, run.done)
    if fields.of_kind(before, "extent") != fields.of_kind(config, "extent"):
        run.revision += 1
        data = _frozen(run.preset, run.base.uri if run.base else None, config)
        if not run.storage.put_new(f"config-{run.revision:04d}.json", data):
            return start_run(uri, preset, config, base)  # another job was first: judge again
    return run


def _frozen(preset: str, base: str | None, config: Config) -> bytes:
    return to_json({"format": FORMAT, "preset": preset, "base": base, "config": fields.to_dict(config)})
