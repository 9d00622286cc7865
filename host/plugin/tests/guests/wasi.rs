//! The stubs of WASI: `tests/programs/wasi` asks as a language runtime does.

use crate::granted::ask_with;
use crate::*;
use pelton_core::grants::{Grants, Random};
use pelton_plugin::Effects;

static WASI: LazyLock<Arc<Plugin>> = LazyLock::new(|| ENGINE.load_bytes("wasi.wasm", &component_of("wasi")).unwrap());

fn ask(grants: &Grants, asked: &[&str]) -> Vec<Result<String, String>> {
    ask_with(&WASI.granted(grants).unwrap(), Effects::Granted, &Limits::default(), asked)
}

#[test]
fn a_runtime_is_told_that_there_is_nothing() {
    let stubs = Grants { wasi: true, ..Grants::default() };
    let asked = ["environment", "wall", "monotonic", "folders", "socket", "print", "random"];
    let told: Vec<String> = ask(&stubs, &asked).into_iter().map(Result::unwrap).collect();
    assert_eq!(told[0], "[] []");
    assert_eq!(told[1], "0");
    assert_eq!((told[3].as_str(), told[5].as_str()), ("0", "true"));
    assert!(told[4].starts_with("Err") && told[4].contains("access-denied"), "{}", told[4]);
    assert_eq!(ask(&stubs, &asked).into_iter().map(Result::unwrap).collect::<Vec<_>>(), told, "it is the same each time");
    let left = ask(&stubs, &["leave", "wall"]);
    assert!(left[0].as_ref().unwrap_err().contains("it ended itself") && left[1].is_ok(), "{left:?}");
}

#[test]
fn a_runtime_is_given_what_is_granted_and_no_more() {
    let refused = WASI.granted(&Grants::default()).err().unwrap().to_string();
    assert!(refused.contains("`wasi:cli/environment@0.2.6`") && refused.ends_with("grants:\n  wasi: true"), "{refused}");
    let granted = Grants { wasi: true, env: vec!["PATH".into()], wall_clock: true, random: Some(Random::Seed(1)), ..Grants::default() };
    let told: Vec<String> = ask(&granted, &["environment", "wall", "random"]).into_iter().map(Result::unwrap).collect();
    assert_eq!(told[0], format!("{:?} []", [("PATH", std::env::var("PATH").unwrap())]));
    assert!(told[1].parse::<u64>().unwrap() > 1_700_000_000);
    assert_ne!(told[2], ask(&Grants { random: None, ..granted }, &["random"])[0].clone().unwrap());
}
