#!/usr/bin/env bash
# start.sh DATA_FOLDER PORT CONTROLLER_PORT [HEAP=256m] ['name=value' ...]
#   Starts one broker that is its own controller on 127.0.0.1:PORT. The first start formats DATA_FOLDER, a later one keeps
#   its data. Extra arguments are lines of server.properties; of two lines with one name the later counts.
#   Returns once the broker answers, and prints its pid, which also stands in DATA_FOLDER/broker.pid.
#   KAFKA_FORMAT_ARGS: arguments for the formatting tool, such as "--add-scram SCRAM-SHA-256=[name=...,password=...]".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?DATA_FOLDER}; port=${2:?PORT}; controller_port=${3:?CONTROLLER_PORT}; heap=${4:-256m}
shift 3; [ $# -gt 0 ] && shift
home=${PELTON_CACHE:-$HOME/.cache/pelton}/kafka
lib=$home/lib
[ -d "$lib" ] || { echo "no Kafka in $home: run 'cargo xtask setup'" >&2; exit 1; }
template=$home/template
: "${KAFKA_JVM_OPTS=-XX:+UseSerialGC -XX:TieredStopAtLevel=1 $( [ -s "$home/kafka.jsa" ] && echo "-XX:SharedArchiveFile=$home/kafka.jsa")}"
mkdir -p "$data"; data=$(cd "$data" && pwd)
if [ -s "$data/broker.pid" ] && grep -qa "$data/server.properties" "/proc/$(cat "$data/broker.pid")/cmdline" 2>/dev/null; then
  echo "already running: $(cat "$data/broker.pid")" >&2; exit 1; fi
cat > "$data/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$data/data
# One node: every internal topic has one replica, and few partitions, because each is a folder made on first use.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# Tests: no wait of 3 s for the first member of a group.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
# Records of tests are of any time; the broker would drop those older than a week half a minute after its start.
log.retention.ms=-1
# After kill -9 the new process registers once the old registration has expired (default 9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Small: threads and buffers for two cores and a small heap; the cleaner's default buffer alone is 128 MiB.
num.network.threads=2
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.threads=1
P
for line in "$@"; do echo "$line" >> "$data/server.properties"; done
if [ ! -e "$data/data/meta.properties" ]; then
  # Formatting is a second JVM of one to two seconds; the kept template is copied instead where nothing special is asked.
  if [ -z "${KAFKA_FORMAT_ARGS:-}" ] && [ -e "$template/meta.properties" ]; then
    mkdir -p "$data/data"; cp -a "$template/." "$data/data/"
  else
    # shellcheck disable=SC2086  # the arguments are words
    java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -cp "$lib/*" kafka.tools.StorageTool format \
      -t cGVsdG9uLXRlc3QtMDAwMQ -c "$data/server.properties" ${KAFKA_FORMAT_ARGS:-} > "$data/format.log" 2>&1 \
      || { cat "$data/format.log" >&2; exit 1; }
    if [ -n "${KAFKA_KEEP_TEMPLATE:-}" ]; then mkdir -p "$template"; cp -a "$data/data/." "$template/"; fi
  fi
fi
# shellcheck disable=SC2086  # the options are words
setsid java -Xms64m -Xmx"$heap" $KAFKA_JVM_OPTS -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
  -Dlog4j2.configurationFile="$here/log4j2.properties" -Dkafka.loglevel="${KAFKA_LOGLEVEL:-warn}" \
  -cp "$lib/*" kafka.Kafka "$data/server.properties" >> "$data/broker.log" 2>&1 < /dev/null &
pid=$!; echo $pid > "$data/broker.pid"
# The port opens only once the broker is registered and ready.
for _ in $(seq 1 6000); do
  kill -0 $pid 2>/dev/null || { echo "the broker ended:" >&2; tail -20 "$data/broker.log" >&2; exit 1; }
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo $pid; exit 0; fi
  sleep 0.05
done
echo "no answer in five minutes" >&2; tail -20 "$data/broker.log" >&2; kill -9 $pid; exit 1
