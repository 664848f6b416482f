#!/usr/bin/env bash
# Trains one node of qwen3-32b. Every launcher starts this file; by hand it is
#   bash launch_node.sh RANK        with RANK from 0 to 3
# An unfinished run goes on from its last whole checkpoint. `--attended` ends the run when standard input
# closes: so a run over ssh does not outlive the connection that started it.
# shellcheck disable=SC1091 # what the site's own lines read is not here
set -euo pipefail

attended=0
if [[ ${1:-} == --attended ]]; then attended=1; shift; fi
rank=${1:-}
nodes=4
if ! [[ $rank =~ ^[0-9]+$ ]] || ((rank >= nodes)); then
  echo "usage: launch_node.sh [--attended] RANK, with RANK from 0 to $((nodes - 1))" >&2
  exit 2
fi

output=/shared/tunebook/output/qwen3-32b
recipe="$output/launch/node_$rank.yaml"
log="$output/logs/node_$rank.log"
mkdir -p "$output/logs"
# Relative paths of the recipe are meant from here.
cd /shared/tunebook

# The site's own lines: activation scripts read variables that are not set.
set +u
export HF_HOME=/shared/hf
set -u
# This node trains a model of its own: nothing of the scheduler's may make it wait for others.
unset NNODES NODE_RANK MASTER_ADDR MASTER_PORT RANK LOCAL_RANK WORLD_SIZE
export TUNEBOOK_LOG="$log"

echo "node $rank on $(uname -n): output goes to $log"
command=(/shared/tunebook/.venv/bin/tunebook train "$recipe")
if ((attended == 0)); then
  # In place of this shell, so that signals reach the run itself.
  exec "${command[@]}" >>"$log" 2>&1
fi

exec 3<&0
setsid "${command[@]}" >>"$log" 2>&1 </dev/null &
child=$!
# The other end holds standard input open as long as it lives. SIGTERM, because a shell's background jobs
# ignore SIGINT.
{ cat <&3 >/dev/null; kill -TERM "$child" 2>/dev/null; } &
watcher=$!
trap 'kill -TERM "$child" 2>/dev/null' INT TERM HUP
status=0
wait "$child" || status=$?
while kill -0 "$child" 2>/dev/null; do
  status=0
  wait "$child" || status=$?
done
kill "$watcher" 2>/dev/null || true
exit "$status"
