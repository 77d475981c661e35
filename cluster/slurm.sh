#!/usr/bin/env bash
# A job on Slurm: starts Ray on the nodes of the allocation and runs one job of this project on it. Before its time limit it
# stops at a checkpoint and requeues itself, as often as needed. docs/own-machines.md explains it.
#
#   sbatch --nodes=4 --cpus-per-task=16 --time=08:00:00 cluster/slurm.sh pipeline car-racing --run /shared/runs/first
#
# Options on sbatch's command line override these:
#SBATCH --job-name=world-models
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=world-models-%j.log
set -uo pipefail

if [ $# -lt 1 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage: sbatch [OPTIONS] cluster/slurm.sh JOB [PRESET] --run /SHARED/FOLDER [FLAGS]" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
if [ -f .venv/bin/activate ]; then
    . .venv/bin/activate
fi

export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
    echo "Ray needs a token, which keeps other users of the nodes out: run \`ray get-auth-token --generate\` once" >&2
    exit 2
fi

cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
port=$((20000 + 2 * (SLURM_JOB_ID % 6000))) # several jobs may share a node; workers take any free ports
ports="--min-worker-port=0 --max-worker-port=0"
wait_seconds=${RAY_START_SECONDS:-180}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
step="srun --nodes=1 --ntasks=1 --cpus-per-task=$cpus --overlap"
head_ip=$($step --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
address="$head_ip:$port"

steps=()
driver=
stop_ray() {
    kill "${steps[@]}" 2>/dev/null
    wait "${steps[@]}" 2>/dev/null
}
trap stop_ray EXIT

# Ray's sockets need a short path that no other user of the node has.
$step --nodelist="${nodes[0]}" ray start --head --block --node-ip-address="$head_ip" --port="$port" \
    --ray-client-server-port=$((port + 1)) $ports --num-cpus="$cpus" --num-gpus="$gpus" \
    --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
steps+=($!)
for ((waited = 0; ; waited++)); do
    if ray status --address="$address" >/dev/null 2>&1; then
        break
    fi
    if ((waited >= wait_seconds)) || ! kill -0 "${steps[0]}" 2>/dev/null; then
        echo "Ray did not start on ${nodes[0]}; its messages are above" >&2
        exit 1
    fi
    sleep 1
done
# Results do not depend on the number of workers, so the job starts with the nodes that are there; others join it.
for node in "${nodes[@]:1}"; do
    $step --nodelist="$node" ray start --block --address="$address" $ports --num-cpus="$cpus" --num-gpus="$gpus" &
    steps+=($!)
done

requeued=
stop_in_time() {
    requeued=yes
    echo "the time limit is near: stopping, to continue in this job's next turn" >&2
    if [ -n "$driver" ]; then
        kill -TERM "$driver" 2>/dev/null
    fi
}
trap stop_in_time USR1 TERM # TERM: preempted

python -m "jobs.$1" "${@:2}" --address "$address" &
driver=$!
wait "$driver"
code=$?
while kill -0 "$driver" 2>/dev/null; do # a signal ended `wait` before the job ended
    wait "$driver"
    code=$?
done
if [ -n "$requeued" ] && [ "$code" -ne 0 ] && [ "$code" -ne 2 ]; then
    stop_ray
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
