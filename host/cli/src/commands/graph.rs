//! `pelton graph`: the plan as written, and as it will run.

use super::Source;
use crate::plugins::Plugins;
use anyhow::Result;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton graph pipeline.yaml --output svg > plan.svg")]
pub struct Graph {
    #[command(flatten)]
    source: Source,
    /// How to draw it; dot and svg draw the optimised plan.
    #[arg(long, value_enum, default_value = "text")]
    output: Drawing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Drawing {
    Text,
    Dot,
    Svg,
}

pub fn run(command: Graph) -> Result<ExitCode> {
    let plugins = Plugins::new()?;
    let graph = match command.source.load(&plugins)? {
        Ok(graph) => graph,
        Err(diagnostics) => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            return Ok(ExitCode::from(crate::USERS_FAULT));
        }
    };
    let (before, after) = (graph.drawing(), pelton_pipeline::physical::drawing(&graph));
    match command.output {
        Drawing::Text => {
            print!("{}\n{}", before.to_text(), after.to_text());
            print_memory(&graph);
        }
        Drawing::Dot => print!("{}", after.to_dot()),
        Drawing::Svg => print!("{}", after.to_svg()),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_memory(graph: &pelton_pipeline::Graph) {
    println!("\nMemory");
    for (account, bytes) in pelton_runtime::run::memory_accounts(graph) {
        println!("  {account:<12}{:>8} MiB", bytes >> 20);
    }
}
