#!/bin/sh
# Two running pipelines, changed while they run: minute traffic gets another plugin, spending alerts another expression. README.md says it line by line.
#
#   examples/plugin-lifecycle/lifecycle.sh [FOLDER]
#
# Run it from the repository's root; PELTON names the binary (default: pelton on the path).
set -eu
out=${1:-out/plugin-lifecycle}
pelton() { command "${PELTON:-pelton}" "$@"; }
masked=examples/plugin-lifecycle/plugins/parse-log-masked
mkdir -p "$out"

# Waits until a pipeline can be told something; its process and its log are named in case it ends.
await() {
  until [ -S "$1/control.sock" ]; do
    kill -0 "$2" 2>/dev/null || { cat "$3"; exit 1; }
    sleep 0.1
  done
}

# Whatever happens, nothing is left running.
trap 'kill $traffic $spending 2>/dev/null || true' EXIT

# 1. Two pipelines run, each with a state folder.
"${PELTON:-pelton}" run examples/minute-traffic/files.yaml --state "$out/traffic" --quiet \
  --set rate=500 --set raw="$out/raw.json" --set windowed="$out/windowed.json" --set errors="$out/errors.json" \
  > "$out/traffic.log" 2>&1 &
traffic=$!
"${PELTON:-pelton}" run examples/spending-alerts/pipeline.yaml --state "$out/spending" --quiet \
  --set rate=500 --set output="$out/alerts.json" > "$out/spending.log" 2>&1 &
spending=$!
await "$out/traffic" $traffic "$out/traffic.log"
await "$out/spending" $spending "$out/spending.log"

# 2. The next version of the plugin is tested alone, on its cases.
pelton plugin test "$masked" --no-native

# 3. It is tried on rows that have just come in; nothing changes.
pelton plugin swap "$out/traffic" Parse "$masked" --dry-run

# 4. It takes over at one exact cut.
pelton plugin swap "$out/traffic" Parse "$masked"

# 5. Spending alerts: only the expression changes.
pelton plugin swap "$out/spending" High --config '{"language": "sql", "keep": "total > 2000"}'

# 6. What was changed, and where.
pelton plugin history "$out/traffic"
pelton plugin history "$out/spending"

# 7. Back, forward in time: what the newer versions have processed stays.
pelton plugin rollback "$out/traffic" Parse
pelton plugin rollback "$out/spending" High
pelton plugin history "$out/traffic"

# 8. The next version for some of the events first: a fifth, then three of five, and then for all, since it does well.
pelton plugin canary "$out/traffic" Parse "$masked" --percent 20,60 --seconds 2 --rows 100 --slower 100 --promote
pelton plugin canary "$out/spending" High --config '{"language": "sql", "keep": "total > 2000"}' --by user \
  --percent 50 --seconds 2 --rows 1 --slower 100
pelton plugin rollback "$out/traffic" Parse

# 9. The end.
pelton stop "$out/traffic"
pelton stop "$out/spending"
wait $traffic $spending
echo "done: the output is in $out"
