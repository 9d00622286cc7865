"""Makes the input of this example and, by a plain loop, the answer that the pipeline must give."""
import datetime as dt, json, pathlib, random
here = pathlib.Path(__file__).parent
rng = random.Random(7)
lines, windows = [], {}
text = lambda second: dt.datetime.fromtimestamp(second, dt.timezone.utc).isoformat().replace("+00:00", "Z")
base = 1767225600  # 2026-01-01T00:00:00Z
for number in range(600):
    at = base + int(number * 3 + rng.random() * 30)
    # Whole quarters, so that sums are exact in any order.
    user, amount = f"user-{rng.randrange(8)}", rng.randrange(4, 900) / 4
    lines.append(json.dumps({"user": user, "amount": amount, "at": text(at)}))
    first = at - at % 60
    for start in range(first - 240, first + 1, 60):
        cell = windows.setdefault((user, start), [0.0, 0])
        cell[0] += amount
        cell[1] += 1
(here / "input.json").write_text("\n".join(lines) + "\n")
rows = [{"user": u, "total": t, "purchases": n, "window_start": text(s), "window_end": text(s + 300)}
        for (u, s), (t, n) in windows.items() if t > 1000]
(here / "expected.json").write_text("".join(sorted(json.dumps(row, sort_keys=True) + "\n" for row in rows)))
