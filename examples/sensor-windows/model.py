"""Makes the input of this example and, by plain loops, the answers that the pipeline must give."""
import datetime as dt, json, pathlib, random
here = pathlib.Path(__file__).parent
rng = random.Random(5)
base = 1767225600  # 2026-01-01T00:00:00Z
text = lambda second: dt.datetime.fromtimestamp(second, dt.timezone.utc).isoformat().replace("+00:00", "Z")
readings = []
for sensor in range(4):
    at = base + sensor * 7
    for _ in range(150):
        at += rng.choice([2, 5, 9, 14, 29, 30, 31, 90])
        readings.append((at, f"sensor-{sensor}", rng.randrange(0, 4000) / 8))
rng.shuffle(readings)
lines = [json.dumps({"at": text(at), "sensor": sensor, "value": value}) for at, sensor, value in readings]
(here / "input.json").write_text("\n".join(lines) + "\n")
fixed, sliding, by_sensor = {}, {}, {}
for at, sensor, value in readings:
    fixed.setdefault((sensor, at - at % 300), []).append(value)
    last = at - at % 120
    for start in range(last - 480, last + 1, 120):
        sliding[sensor, start] = sliding.get((sensor, start), 0) + 1
    by_sensor.setdefault(sensor, []).append((at, value))
sessions = []
for sensor, rows in by_sensor.items():
    rows.sort()
    open_session = [rows[0]]
    for row in rows[1:]:
        if row[0] - open_session[-1][0] < 30:
            open_session.append(row)
        else:
            sessions.append((sensor, open_session))
            open_session = [row]
    sessions.append((sensor, open_session))
write = lambda name, rows: (here / f"expected-{name}.json").write_text("".join(sorted(json.dumps(row, sort_keys=True) + "\n" for row in rows)))
write("means", [{"sensor": s, "window_start": text(t), "mean": sum(v) / len(v)} for (s, t), v in fixed.items()])
write("counts", [{"sensor": s, "window_start": text(t), "readings": n} for (s, t), n in sliding.items()])
write("sessions", [{"sensor": s, "began": text(r[0][0]), "seconds": r[-1][0] + 30 - r[0][0], "readings": len(r),
                    "range": max(v for _, v in r) - min(v for _, v in r)} for s, r in sessions])
