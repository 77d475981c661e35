"""A run: a storage location with a frozen config, the results of its stages, and manifests that complete them.

    config.json, config-0001.json    the config; later files have other extents, nothing else
    collect/manifest-0000000160.json the shards of 160 episodes, with hashes
    collect/...                      the data itself, written before the manifest that names it
    latents/3f0c91a2b7d4/...         the path of a stage contains the digest of the model it was made with
    .../seconds.json                 time spent on the stage by all jobs that worked on it

A stage is complete if and only if a manifest says so.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from wm.config import fields
from wm.config.schema import FORMAT, Config
from wm.errors import UserError
from wm.models.precision import fast_precision
from wm.pool import Progress
from wm.runs.clock import Clock
from wm.runs.cures import remake, restart
from wm.runs.manifest import Manifest, load_manifest
from wm.runs.provenance import circumstances, warn_of_differences
from wm.runs.reader import Damaged, check_format, parsed, sealed, unsealed
from wm.runs.stages import STAGES, extent_of
from wm.runs.storage import Storage, open_storage
from wm.schemas import Wrong, mapping, one_of, optional, plain, record, text

log = logging.getLogger(__name__)

CONFIG = re.compile(r"config(?:-([0-9]{4,9}))?\.json")


def number_in(key: str, kind: str) -> int:
    """The extent in the name of a manifest (kind "manifest") or a checkpoint (kind "step"); 0 for other files."""
    found = re.search(rf"/{kind}-([0-9]{{10}})[-.]", key)
    return int(found[1]) if found else 0


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a manifest, and the defaults of those that did not exist when it was made."""
    sections = {path.partition(".")[0] for path in config if "." in path}
    defaults = fields.of_kind(Config(), "bits")
    return {path: value for path, value in defaults.items() if path.partition(".")[0] in sections} | config


class Stage:
    """One stage of a run. Results of its base count, too, if they were made with the same config."""

    def __init__(self, run: "Run", name: str, of: str | None):
        self.run, self.name, self.of = run, name, of
        self.folder = f"{name}/{of[:12]}" if of else name
        self.config = run.deciding(name)
        self.clock: Clock | None = None

    @property
    def wanted(self) -> int:
        """The extent in the run's config."""
        return extent_of(self.run.config, self.name)

    def begin(self) -> None:
        """Start the clock."""
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
            for key in reversed(self.manifest_keys(run)):
                if extent is not None and not key.endswith(f"-{extent:010d}.json"):
                    continue
                manifest = load_manifest(run.storage, key)
                if run is self.run:
                    self._check_made_here(manifest, key)
                if _with_defaults(manifest.config) == self.config and (run is self.run or self._same_inputs(manifest)):
                    warn_of_differences(manifest.made["code"], manifest.made["processor"])
                    return manifest
            run = run.base
        return None

    def manifest_keys(self, run: "Run") -> list[str]:
        """The manifests of this stage in a run, by extent."""
        name = re.compile(re.escape(self.key("manifest-")) + r"[0-9]{10}\.json")
        return [key for key in run.storage.sizes(self.folder) if name.fullmatch(key)]

    def _check_made_here(self, manifest: Manifest, key: str) -> None:
        """Raise a UserError for a manifest of another config or other inputs, which was copied here or whose run's
        config was replaced: the stage could never be completed.
        """
        file, run = f"{self.run.uri}/{key}", self.run
        made = _with_defaults(manifest.config)
        differing = [name for name in self.config | made if made.get(name) != self.config.get(name)]
        if differing:
            name = differing[0]
            raise UserError(
                f"{file} was made with --{name} {made.get(name)}, but the config of this run has"
                f" {self.config.get(name)}: restore {run.uri}/config.json, or start another run"
            )
        source = STAGES[self.name].made_of(run.config)
        if source and manifest.inputs.get(source, self.of) != self.of:
            raise Damaged(file, f"it was made of another {source}", remake(run.storage, self.name))

    def _same_inputs(self, manifest: Manifest) -> bool:
        """Whether a base made this from the rollouts of this run. Runs may have the same V and different rollouts."""
        reads = STAGES[self.name].reads
        if reads is None:
            return True
        source = "collect" if "agent" in manifest.inputs else reads
        ours = self.run.stage(source, self.of if source == "latents" else None).manifest()
        if ours is None:
            return False
        if "agent" in manifest.inputs:  # unpacked from an agent file, which is the only input of all stages
            return ours.inputs == manifest.inputs
        return manifest.inputs.get(source) == ours.digest

    def complete(self, extent: int | None = None) -> Manifest | None:
        """The manifest if it reaches the extent in the config, or `extent` if given; otherwise None."""
        manifest = self.manifest()
        return manifest if manifest and manifest.extent >= (self.wanted if extent is None else extent) else None

    def commit(
        self,
        extent: int,
        *,
        inputs: dict[str, str],
        content: dict[str, Any],
        metrics: dict[str, Any],
    ) -> Manifest:
        """Declare the stage complete up to here. Everything that `content` names must have been written before."""
        values: dict[str, Any] = {
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
                "seconds": self.clock.save() if self.clock else 0.0,  # reused work costs nothing
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        }
        key = self.key(f"manifest-{extent:010d}.json")
        written = self.run.storage.put_new(key, sealed(values, key))
        made = load_manifest(self.run.storage, key)
        if not written:
            self._check_made_here(made, key)
            log.warning("%s was written by another job in the meantime; its result is used", key)
        return made


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
        self.cpus = 0  # that its stages use; set by the job

    @property
    def uri(self) -> str:
        return self.storage.uri

    def stage(self, name: str, of: str | None = None) -> Stage:
        """A stage of this run, made with the run's own model or with the one that has the digest `of`."""
        source = STAGES[name].made_of(self.config)
        return Stage(self, name, of or (self.need(source).digest if source else None))

    def need(self, name: str, of: str | None = None) -> Manifest:
        """The manifest of a stage that is complete; raises a UserError that names its job otherwise."""
        stage = self.stage(name, of)
        manifest = stage.manifest()
        if manifest is None:
            raise self.missing(name)
        if manifest.extent < stage.wanted:
            raise UserError(
                f"{name} is not complete in {self.uri} ({manifest.extent:,} of {stage.wanted:,}): run"
                f" `python -m jobs.{name} --run {self.uri}`, or lower --{STAGES[name].extent}"
            )
        return manifest

    def missing(self, name: str) -> UserError:
        return UserError(f"no completed {name} stage in {self.uri}: run `python -m jobs.{name} --run {self.uri}`")

    def deciding(self, name: str) -> dict[str, Any]:
        """The frozen fields that decide what a stage makes: those of the run itself and of the stage's sections."""
        sections = (name, *STAGES[name].sections)
        return {
            path: value
            for path, value in fields.of_kind(self.config, "bits").items()
            if "." not in path or path.partition(".")[0] in sections
        }

    def least_extents(self) -> dict[str, int]:
        """The least value of each extent: what is complete or, if there is a later checkpoint, one more than that."""
        least: dict[str, int] = {}
        for name, stage in STAGES.items():
            keys = self.storage.sizes(name)
            complete, begun = (max((number_in(key, kind) for key in keys), default=0) for kind in ("manifest", "step"))
            least.setdefault(stage.extent, begun + 1 if begun > complete else complete)
        return least


SCHEMA = record(
    {
        "format": one_of(FORMAT),
        "preset": text(longest=200),
        "base": optional(text(longest=2_000)),
        "config": mapping(plain),
    }
)


def open_run(uri: str) -> Run | None:
    """The run at this URI, or None."""
    return _open(uri, ())


def _open(uri: str, derived: tuple[str, ...]) -> Run | None:
    """The run at this URI, the base of the runs in `derived`."""
    storage = open_storage(uri)
    try:
        found = {key: int(name[1] or 0) for key in storage.sizes() if (name := CONFIG.fullmatch(key))}
        newest = max(found, key=lambda key: found[key], default=None)
    except OSError as error:
        raise UserError(f"can't read {uri}: {str(error).splitlines()[0]}") from None
    if newest is None:
        return None
    values, config = read_config(storage, newest)
    base: Run | None = None
    if values["base"] is not None:
        if storage.uri in derived:
            raise Damaged(f"{storage.uri}/{newest}", "the run is its own base", restart(storage.uri))
        base = _open(values["base"], (*derived, storage.uri))
        if base is None:
            raise _no_run(values["base"])
    return Run(storage, config, values["preset"], base, found[newest])


def read_config(storage: Storage, key: str) -> tuple[dict[str, Any], Config]:
    """All values in a config file, and the config itself."""
    file, cure = f"{storage.uri}/{key}", restart(storage.uri)
    data = storage.get(key) or b""
    values = parsed(data, file, cure)
    check_format(values.get("format") if isinstance(values, dict) else None, storage.uri, "start another run")
    values = unsealed(data, storage, key, SCHEMA, cure)
    try:
        config = fields.from_dict(values["config"], Config)
        config.check_values()
    except (Wrong, UserError) as error:
        raise Damaged(file, str(error), cure) from None
    return values, config


def _no_run(uri: str) -> UserError:
    return UserError(f"no run in {uri}: start one with `python -m jobs.pipeline PRESET --run {uri}`")


def open_existing(uri: str) -> Run:
    run = open_run(uri)
    if run is None:
        raise _no_run(uri)
    return run


def start_run(uri: str, preset: str, config: Config, base: str | None = None) -> Run:
    """A new run with this config frozen, or the existing run extended to it."""
    config.check()
    run = open_run(uri)
    config = fields.without_auto(config, run.config if run else None, fast_precision)
    if run is None:
        base = open_existing(base).uri if base is not None else None
        # If another job is faster, its config is checked below.
        open_storage(uri).put_new("config.json", _frozen(preset, base, config, "config.json"))
        run = open_existing(uri)
    if base is not None and (run.base is None or open_storage(base).uri != run.base.uri):
        raise UserError(
            f"{uri} was started {f'with --base {run.base.uri}' if run.base else 'without --base'}: start another run"
        )
    before, run.config = run.config, fields.extended(run.config, config, run.least_extents)
    if fields.of_kind(before, "extent") != fields.of_kind(config, "extent"):
        run.revision += 1
        key = f"config-{run.revision:04d}.json"
        if not run.storage.put_new(key, _frozen(run.preset, run.base.uri if run.base else None, config, key)):
            return start_run(uri, preset, config, base)  # another job was faster: check again
    return run


def _frozen(preset: str, base: str | None, config: Config, key: str) -> bytes:
    return sealed({"format": FORMAT, "preset": preset, "base": base, "config": fields.to_dict(config)}, key)
