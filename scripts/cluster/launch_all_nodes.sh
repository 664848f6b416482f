#!/usr/bin/env bash
# Starts every node of qwen3-32b over ssh and waits for all: `bash launch_all_nodes.sh`.
# `tunebook launch --via ssh` does the same, and more: a table of the nodes, and an end to all at Ctrl-C
# even when a connection hangs.
set -euo pipefail

launch=/shared/tunebook/output/qwen3-32b/launch
options=(-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15)
mapfile -t hosts <"$launch/hosts.txt"

pids=()
for rank in "${!hosts[@]}"; do
  host=${hosts[$rank]}
  command="bash $(printf %q "$launch/launch_node.sh") --attended $rank"
  # `tail` holds the connection's input open as long as this script lives. When it closes, launch_node.sh
  # ends its run: without it a run would outlive the ssh that started it.
  # shellcheck disable=SC2029 # $command is meant to be put together here
  ssh "${options[@]}" "$host" "$command" < <(tail -f /dev/null --pid=$$) >"$launch/ssh_node_$rank.out" 2>&1 &
  pids+=($!)
  echo "node $rank: $host"
done
trap 'kill "${pids[@]}" 2>/dev/null' INT TERM HUP

failed=0
for rank in "${!pids[@]}"; do
  status=0
  wait "${pids[$rank]}" || status=$?
  if ((status != 0)); then failed=1; fi
  echo "node $rank (${hosts[$rank]}): exit status $status"
done
exit "$failed"
