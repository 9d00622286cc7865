"""Makes the input of this example and, by a plain loop, the answer that the pipeline must give."""
import json, pathlib, random
here = pathlib.Path(__file__).parent
rng = random.Random(3)
lines, rows = [], []
for number in range(500):
    reading = {"sensor_id": f"s{rng.randrange(12)}", "temperature": rng.randrange(150, 400) / 10 + 0.05, "humidity": rng.randrange(30, 100),
               "pressure": rng.randrange(980, 1040), "timestamp": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
               "location": rng.choice(["hall", "roof", "cellar"])}
    if rng.random() < 0.05:
        reading["humidity"] = None
    lines.append(json.dumps(reading))
    if reading["temperature"] > 30 and (reading["humidity"] or 0) > 70:
        message = f"temperature {reading['temperature']}, humidity {reading['humidity']}"
        rows.append({key: reading[key] for key in ("sensor_id", "timestamp", "location")} | {"message": message})
(here / "input.json").write_text("\n".join(lines) + "\n")
(here / "expected.json").write_text("".join(sorted(json.dumps(row, sort_keys=True) + "\n" for row in rows)))
