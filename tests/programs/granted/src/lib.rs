//! Asks the host for all that can be granted.

use pelton_sdk::prelude::*;
use pelton_sdk::{clock, env, http, random};

#[derive(Row)]
struct Asked<'a> {
    what: &'a str,
}

#[derive(Row)]
struct Told {
    told: String,
}

/// What the host says: `METHOD URL`, `env NAME`, `clock`, `monotonic` or `random N`.
#[transform]
fn ask(row: Asked<'_>) -> Result<Told, String> {
    let told = match row.what.split_once(' ') {
        Some(("env", name)) => env::var(name).unwrap_or_else(|| "absent".into()),
        Some(("random", count)) => {
            let bytes = random::bytes(count.parse().map_err(|_| "no number")?);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Some((method, url)) => {
            let headers = vec![("X-Own".into(), "1".into()), ("authorization".into(), "my own".into())];
            let answer = http::request(http::Request { method: method.into(), url: url.into(), headers, body: vec![] });
            let answer = answer.map_err(|error| format!("{:?}: {error}", error.kind))?;
            format!("{} {}", answer.status, answer.text())
        }
        None if row.what == "clock" => clock::now().0.to_string(),
        None => clock::monotonic().as_nanos().to_string(),
    };
    Ok(Told { told })
}

plugin!(ask);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_answers_in_place_of_the_host() {
        testing::fake_http(|request| Ok(http::Response::new(200, format!("{} {}", request.method, request.url))));
        testing::fake_env("REGION", "eu");
        testing::fake_clock(7);
        for (what, told) in [("GET https://x/", "200 GET https://x/"), ("env REGION", "eu"), ("env HOME", "absent"), ("clock", "7")] {
            assert_eq!(ask(Asked { what }).map(|row| row.told), Ok(told.to_string()));
        }
    }
}
