//! The reference of connectors, transforms and the API of a host, made from what they say of themselves.

use anyhow::Result;
use pelton_core::catalog::KeySpec;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton reference transforms > docs/reference/transforms.md")]
pub struct Reference {
    /// Which of them.
    #[arg(value_enum, default_value = "connectors")]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Connectors,
    Transforms,
    /// Of a host.
    Api,
}

pub fn run(reference: &Reference) -> Result<ExitCode> {
    match reference.what {
        What::Connectors => {
            println!("# Connectors\n\nMade by `pelton reference connectors` from the connectors themselves.");
            let mut specs = pelton_connect::catalog();
            specs.sort_by_key(|spec| spec.name);
            specs.iter().for_each(|spec| section(spec.name, spec.doc, spec.keys));
        }
        What::Transforms => {
            println!(
                "# Transforms\n\nMade by `pelton reference transforms`. The config of any of them may have `output_schema`, a JSON schema"
            );
            println!("that the rows of its main output must fit; those that do not are errors of the transform.");
            println!("Those that Beam does not have are in [Pelton's own transforms](pelton-transforms.md).");
            println!("Connectors (`ReadFrom…`, `WriteTo…`, `Create`, `AssertEqual`) have [a page of their own](connectors.md).");
            pelton_pipeline::reference::TRANSFORMS.iter().for_each(|spec| section(spec.name, spec.doc, spec.keys));
        }
        What::Api => {
            println!(
                "# The API of a host\n\nMade by `pelton reference api` from the OpenAPI document, which a host gives at `/openapi.json`.\n"
            );
            println!("## Endpoints\n");
            print!("{}", pelton_server::api::openapi::markdown());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn section(name: &str, doc: &str, keys: &[KeySpec]) {
    println!("\n## {name}\n\n{doc}");
    if !keys.is_empty() {
        println!("\n| key | required | meaning |\n|---|---|---|");
    }
    for key in keys {
        println!("| `{}` | {} | {} |", key.name, if key.required { "yes" } else { "" }, key.doc.replace('|', "\\|"));
    }
}
