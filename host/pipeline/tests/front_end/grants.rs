//! `grants` of a provider, and of keys in `trust`.

use crate::load_with;
use pelton_core::grants::{Grants, Kind, Random};
use pelton_pipeline::Graph;

fn with(grants: &str) -> Result<Graph, String> {
    let text = format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: Create, config: {{elements: [1]}}}}
    - {{type: Parse, config: {{limit: 3}}}}
providers:
  - type: wasm
    config:
      plugin: plugins/parse.wasm
{grants}
    transforms: {{Parse: parse}}
"
    );
    load_with(&text, &[]).map_err(|faults| pelton_pipeline::render(&faults))
}

#[test]
fn nothing_is_granted_by_default_and_the_rest_as_it_is_written() {
    assert_eq!(with("      limits: {}").expect("it is right").providers[0].grants, Grants::default());
    let graph = with(
        "      grants:
        http:
          - GET https://geo.example.com/v1/
          - allow: GET,POST https://api.example.com/users/
            headers: {Authorization: {env: TOKEN, prefix: 'Bearer '}, X-Key: {file: secrets/key}, Accept: text/plain}
            private: [10.0.0.0/8, ::1]
            request_bytes: 0
            response_bytes: 256KiB
            deadline: 2s
        env: [REGION]
        wall_clock: true
        random: {seed: 42}",
    );
    let grants = graph.unwrap_or_else(|faults| panic!("{faults}")).providers.remove(0).grants;
    assert_eq!(grants.kinds(), [Kind::Http, Kind::Env, Kind::WallClock, Kind::Random]);
    assert_eq!(grants.random, Some(Random::Seed(42)));
    assert_eq!(
        grants.to_string(),
        "GET https://geo.example.com/v1/, 1048576 and 4194304 bytes, 5s; GET,POST https://api.example.com/users/, header authorization \"Bearer \" \
         from env TOKEN, header x-key \"\" from file folder/secrets/key, header accept \"\" from `text/plain`, private 10.0.0.0/8, private ::1/128, 0 \
         and 262144 bytes, 2s; env REGION; wall_clock; random with the seed 42"
    );
}

#[test]
fn what_cannot_be_granted_is_refused() {
    for (grants, words) in [
        ("{htp: []}", "unknown key `htp`"),
        ("{http: GET https://host/}", "`http` must be a list"),
        ("{http: ['https://host/']}", "is not of the form `GET https://host/path/`"),
        ("{http: ['CONNECT https://host/']}", "is no method that can be granted"),
        ("{http: ['GET https://user@host/']}", "is no URL that can be asked for"),
        ("{http: [{deadline: 1s}]}", "needs `allow`"),
        ("{http: [{allow: GET https://host/, deadline: 0s}]}", "lets no request through"),
        ("{http: [{allow: GET https://host/, headers: {Host: x}}]}", "is not the name of a header that can be added"),
        ("{http: [{allow: GET https://host/, headers: {X: {env: A, file: B}}}]}", "is a text, `{env: NAME}` or `{file: PATH}`"),
        ("{http: [{allow: GET https://host/, private: [10.0.0.0/99]}]}", "is no network"),
        ("{http: [{allow: GET https://host/, response_bytes: 1MB}]}", "must be a number of bytes"),
        ("{env: ['*']}", "is not the name of an environment value"),
        ("{wall_clock: maybe}", "must be true or false"),
        ("{random: 7}", "must be true or `{seed: NUMBER}`"),
        ("{random: {seed: -1}}", "must be a whole number"),
    ] {
        let told = with(&format!("      grants: {grants}")).err().unwrap_or_else(|| panic!("{grants} is taken"));
        assert!(told.contains(words), "{grants}: {words} is not in:\n{told}");
    }
}
