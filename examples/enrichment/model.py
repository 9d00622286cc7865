"""Makes the input of this example and, by a plain loop, the answer that the pipeline must give."""
import datetime as dt, json, pathlib, random
here = pathlib.Path(__file__).parent
rng = random.Random(3)
start = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
iso = lambda at: at.isoformat(timespec="seconds").replace("+00:00", "Z")
names = ["segment", "country", "registered"]
profiles = {
    f"u{number}": dict(zip(names, (rng.choice(["free", "pro", "team"]), rng.choice(["DE", "FR", "JP"]),
                                   f"20{rng.randrange(15, 25)}-0{rng.randrange(1, 10)}-{rng.randrange(10, 28)}")))
    for number in range(40) if number % 7 != 3
}
unknown = dict.fromkeys(names, "unknown")
events, enriched, totals = [], [], {}
for number in range(800):
    at = start + dt.timedelta(seconds=number * 5 - rng.randrange(30))
    event = {"user": rng.choice([None] + [f"u{user}" for user in range(44)]), "at": iso(at),
             "action": rng.choice(["view", "view", "purchase"]), "amount": None}
    if event["action"] == "purchase":
        event["amount"] = rng.randrange(1, 200)
    events.append(event)
    enriched.append({**event, **profiles.get(event["user"], unknown)})
    if event["action"] == "purchase":
        until = iso(at + dt.timedelta(seconds=600 - at.timestamp() % 600))
        total = totals.setdefault((enriched[-1]["segment"], until), [0, 0])
        total[0] += 1
        total[1] += event["amount"]
segments = [{"segment": s, "until": u, "purchases": n, "spent": a} for (s, u), (n, a) in totals.items()]
def write(name, rows):
    (here / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
write("input.json", events)
write("profiles.json", [{"user_id": user, **profile} for user, profile in profiles.items()])
write("expected.json", enriched)
write("expected-segments.json", segments)
