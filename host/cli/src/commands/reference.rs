//! The reference of connectors, made from what they say of themselves.

use anyhow::Result;
use std::process::ExitCode;

pub fn run() -> Result<ExitCode> {
    println!("# Connectors\n\nMade by `pelton reference` from the connectors themselves.");
    let mut specs = pelton_connect::catalog();
    specs.sort_by_key(|spec| spec.name);
    for spec in specs {
        println!("\n## {}\n\n{}\n\n| key | required | meaning |\n|---|---|---|", spec.name, spec.doc);
        for key in spec.keys {
            println!("| `{}` | {} | {} |", key.name, if key.required { "yes" } else { "" }, key.doc.replace('|', "\\|"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
