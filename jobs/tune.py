"""Search any fields of the config: `python -m jobs.tune PRESET --run URI --search FIELD=SPACE ... --trials N`.

Each trial is an ordinary run that changes these fields and shares every stage that they do not touch. The same command
resumes an interrupted search. The results are URI/tune.html, a table (Markdown, CSV, JSON) and TensorBoard's HParams.

    --search 'evolve.sigma0=0.01..0.3 log'   a range; log: uniform in the logarithm
    --search evolve.population=16,32,64      choices
    --search 'memory.hidden=64..256 3'       three evenly spaced choices, for a grid
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs.command_line import RunOptions, parse, value_of, without
from jobs.display import Display
from jobs.runner import guard, interrupt, open_pool
from wm.config.fields import leaves
from wm.config.schema import Config
from wm.errors import UserError
from wm.experiments.definition import Definition, define, read_definition
from wm.experiments.searchers import KINDS
from wm.experiments.spaces import parse_spaces
from wm.experiments.trials import Place, Schedule, level_of, make_base, run_here, stages_before
from wm.experiments.tune import Search
from wm.pool import Pool, Progress
from wm.report.tune_page import tune_page
from wm.report.tune_table import Results, comma_separated, data, markdown
from wm.runs.lease import hold
from wm.runs.run import Run, open_existing, open_run, start_run
from wm.runs.status import stage_statuses
from wm.runs.storage import Storage, open_storage, to_json
from wm.training.tensorboard import hparams_file

FLAGS = {
    "search FIELD=SPACE": "A field and its values; once for each field.",
    "trials N": "Configurations to try; a grid has as many as its choices give.",
    "searcher KIND": "random (default), grid: all combinations, or tpe: a model of the results so far, Optuna's.",
    "seeds K": "Evolutions for each configuration, with different seeds (default 1).",
    "stop-early": "Stop trials that are below the median by more than the errors of the validations.",
    "cpus-each N": "CPUs of each trial (default 1); as many trials as fit run in parallel.",
    "gpus-each N": "GPUs of each trial (default 0).",
    "no-score": "Do not score the best configuration in the unmodified game at the end.",
}


def tune(options: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, interrupt)
    start, uri = time.monotonic(), value_of(words, "--run")
    # The config of the search is that of the run URI/base, so an existing search brings its own.
    starts = (
        not words
        or not words[0].startswith("-")
        or value_of(words, "--base")
        or {"-h", "--help", "--help-all"} & {*words}
    )
    if uri and not starts and open_run(f"{uri}/base") is None:
        start_it = f"`python -m jobs.tune PRESET --run {uri} --search FIELD=SPACE --trials N`"
        raise UserError(f"no search in {uri}: start one with {start_it}")
    words = [*without(words, "--run"), *(["--run", f"{uri}/base"] if uri else [])]
    preset, run_options, config = parse("tune", __doc__ or "", words, more=FLAGS)
    config.check()
    storage = open_storage(str(uri))
    definition = _definition(options, storage, config)
    with Display(config.workers.log_seconds, 0) as display, hold(storage, run_options.take_over) as lease:

        def tell(progress: Progress) -> None:
            lease.check()
            display.tell(progress)

        define(storage, definition)
        base = start_run(run_options.run, preset, config, run_options.base)
        search = Search(storage, definition, base.config)
        before = set(search.results)
        pool = open_pool(run_options, config)
        try:
            _make_base(base, search, pool, tell)
        finally:
            pool.close()
        carry_out(search, search.place, run_options, options.cpus_each, options.gpus_each, tell)
        results = Results.of(search)
        if results.best and not options.no_score:
            results = results.scored(_score(results.best.runs[0].uri, run_options, config, tell))
        table = _write(storage, results)
    print(
        f"{table}\n{storage.uri}/tune.html, table.md, .csv, .json; tensorboard --logdir {storage.uri}", file=sys.stderr
    )
    return {
        "job": "tune",
        "run": storage.uri,
        "seconds": round(time.monotonic() - start, 1),
        "made": sorted(set(search.results) - before),
        "best": results.command() if results.best else None,
        "trials": data(results)["trials"],
    }


def carry_out(
    schedule: Schedule, place: Place, options: RunOptions, cpus: int, gpus: float, tell: Callable[[Progress], None]
) -> None:
    """Run all trials of a schedule, on Ray or in this process."""
    pool = open_pool(options, place.config)
    try:
        if options.local:
            run_here(schedule, place, pool, tell)
        else:
            from cluster.tune import run_trials

            run_trials(schedule, place, cpus, gpus, tell)
    finally:
        pool.close()


def _definition(options: argparse.Namespace, storage: Storage, config: Config) -> Definition:
    """What the flags say; without --search, what the search at this URI was started with."""
    if options.cpus_each < 1 or options.gpus_each < 0:
        raise UserError(f"--cpus-each must be 1 or more, got {options.cpus_each}, --gpus-each 0 or more")
    known = read_definition(storage)
    if known and not options.search:
        trials, seeds = options.trials or known.trials, options.seeds or known.seeds
        return replace(known, trials=trials, seeds=seeds).check(config)
    spaces = tuple(parse_spaces(options.search, config))
    return Definition(spaces, options.searcher, options.trials, options.seeds or 1, options.stop_early).check(config)


def _make_base(base: Run, search: Search, pool: Pool, tell: Callable[[Progress], None]) -> None:
    level, uses_memory = search.stages_of_base
    _check_extents(base, search)
    with hold(base.storage, take_over=True):
        base.tell, base.cpus = tell, pool.workers * max(1, base.config.threads)
        make_base(base, stages_before(level, uses_memory), pool)


def _check_extents(base: Run, search: Search) -> None:
    """A stage that is complete to a further extent than a trial wants would be shared by mistake."""
    for name in search.definition.fields:
        stage = level_of(name)
        if leaves(base.config)[name][0] == "extent" and stage != "evolve" and stage_statuses(base)[stage].manifest:
            raise UserError(
                f"--search {name} needs a base without the stage {stage}, which trials would share: use another --base"
            )


def _score(uri: str, options: RunOptions, config: Config, tell: Callable[[Progress], None]) -> Any:
    """The score of the best trial in the unmodified game."""
    from wm.stages.score import score

    run = open_existing(uri)
    pool = open_pool(options, config)
    try:
        with hold(run.storage, take_over=True):
            run.tell, run.cpus = tell, pool.workers * max(1, config.threads)
            return score(run, pool).metrics
    finally:
        pool.close()


def _write(storage: Storage, results: Results) -> str:
    table = markdown(results)
    storage.put("table.md", table.encode())
    storage.put("table.csv", comma_separated(results).encode())
    storage.put("table.json", to_json(data(results)))
    storage.put("tune.html", tune_page(results).encode())
    for row in results.rows:
        metrics = {"validation": row.mean, "generations": float(row.generations)} if row.runs else {}
        storage.put(f"hparams/{row.number:04d}/events.out.tfevents.0.hparams", hparams_file(row.values, metrics))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--search", action="append", default=[])
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--searcher", choices=KINDS, default="random")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--stop-early", action="store_true")
    parser.add_argument("--cpus-each", type=int, default=1)
    parser.add_argument("--gpus-each", type=float, default=0)
    parser.add_argument("--no-score", action="store_true")
    options, words = parser.parse_known_args()
    sys.exit(guard(lambda: tune(options, words)))
