#!/usr/bin/env bash
# stop.sh DATA_FOLDER [-9]   Ends the broker that start.sh started there, by its pid once that is seen to be this broker, and waits for it.
set -euo pipefail
data=$(cd "${1:?DATA_FOLDER}" && pwd); signal=${2:--TERM}
pid=$(cat "$data/broker.pid" 2>/dev/null) || exit 0
grep -qa "$data/server.properties" "/proc/$pid/cmdline" 2>/dev/null || { rm -f "$data/broker.pid"; exit 0; }
kill "$signal" "$pid"
for _ in $(seq 1 300); do kill -0 "$pid" 2>/dev/null || { rm -f "$data/broker.pid"; exit 0; }; sleep 0.05; done
kill -9 "$pid"; rm -f "$data/broker.pid"
