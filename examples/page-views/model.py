"""Makes the input of this example and, by a plain loop, the answer that the pipeline must give."""
import datetime as dt, json, pathlib, random
here = pathlib.Path(__file__).parent
rng = random.Random(2)
start = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
pages, countries = ["/", "/pricing", "/docs", "/blog"], ["DE", "FR", "US", None]
lines, counts = [], {}
for number in range(900):
    at = start + dt.timedelta(seconds=number * 0.7 - rng.random() * 40 * (rng.random() < 0.2))
    view = {"page": rng.choice(pages), "country": rng.choice(countries), "user": f"u{rng.randrange(50)}",
            "viewed_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    if number % 97 == 50:
        view["viewed_at"] = "yesterday"
    else:
        end = at.replace(second=0, microsecond=0) + dt.timedelta(minutes=1)
        key = (view["page"], view["country"], end.isoformat().replace("+00:00", "Z"))
        counts[key] = counts.get(key, 0) + 1
    lines.append(json.dumps(view))
(here / "input.json").write_text("\n".join(lines) + "\n")
rows = [{"page": p, "country": c, "views": n, "minute_end": e} for (p, c, e), n in counts.items()]
(here / "expected.json").write_text("".join(sorted(json.dumps(row, sort_keys=True) + "\n" for row in rows)))
