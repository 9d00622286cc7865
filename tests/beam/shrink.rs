//! Makes a pipeline that shows a difference smaller, as long as it shows the same one: transforms, rows and entries of configs
//! are left out one by one until nothing more can go.

use super::random::Plan;
use super::run::{Runner, Verdict};
use serde_json::Value as Json;

/// Pipelines that are tried at most: each costs Beam a fraction of a second.
const TRIES: usize = 150;

/// The smallest that was found, and what is wrong with it.
pub fn shrink(runner: &mut Runner, plan: Plan) -> (Plan, String) {
    let Verdict::Wrong(mut why) = runner.plan(&plan) else {
        return (plan, "the difference does not come twice: it depends on timing".into());
    };
    let (mut smallest, wanted, mut tries) = (plan, kind(&why), 0);
    loop {
        let mut found = false;
        for candidate in smaller(&smallest) {
            tries += 1;
            if tries > TRIES {
                return (smallest, why);
            }
            if let Verdict::Wrong(reason) = runner.plan(&candidate)
                && kind(&reason) == wanted
            {
                (smallest, why, found) = (candidate, reason, true);
                break;
            }
        }
        if !found {
            return (smallest, why);
        }
    }
}

/// What sort of difference it is: one that becomes another is lost.
fn kind(why: &str) -> Vec<bool> {
    ["gives", "ours rejected", "ours failed", "broken", "Beam ran", "Beam rejected", "Beam failed"]
        .iter()
        .map(|part| why.contains(part))
        .collect()
}

/// Everything that is smaller by one thing, big things first.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    for step in (0..plan.steps.len()).rev() {
        candidates.extend(without(plan, step));
    }
    for (number, step) in plan.steps.iter().enumerate() {
        let lists = [("elements", ""), ("fields", ""), ("combine", ""), ("group_by", ""), ("outputs", "")];
        for (key, _) in lists {
            match &step.config[key] {
                Json::Array(items) => candidates.extend((0..items.len()).map(|at| {
                    let mut items = items.clone();
                    items.remove(at);
                    with(plan, number, key, Json::Array(items))
                })),
                Json::Object(entries) if entries.len() > 1 => candidates.extend(entries.keys().map(|name| {
                    let mut entries = entries.clone();
                    entries.shift_remove(name);
                    with(plan, number, key, Json::Object(entries))
                })),
                _ => {}
            }
        }
    }
    candidates.extend(columns(plan));
    candidates
}

fn with(plan: &Plan, step: usize, key: &str, value: Json) -> Plan {
    let mut smaller = plan.clone();
    smaller.steps[step].config[key] = value;
    smaller
}

/// Without a step: what read it reads what it read. A source goes with its only readers' reference to it.
fn without(plan: &Plan, step: usize) -> Option<Plan> {
    let input = plan.steps[step].inputs.first().cloned();
    if plan.steps.len() == 1
        || (input.is_none()
            && plan.steps.iter().any(|reader| reader.inputs.iter().all(|(from, _)| *from == step) && !reader.inputs.is_empty()))
    {
        return None;
    }
    let mut smaller = plan.clone();
    smaller.steps.remove(step);
    let moved = |from: usize| if from > step { from - 1 } else { from };
    for reader in &mut smaller.steps {
        reader.inputs = reader
            .inputs
            .iter()
            .filter_map(|(from, output)| if *from == step { input.clone() } else { Some((*from, output.clone())) })
            .map(|(from, output)| (moved(from), output))
            .collect();
        reader.inputs.dedup();
    }
    Some(smaller)
}

/// Without a column of the rows.
fn columns(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    for (number, step) in plan.steps.iter().enumerate() {
        let Json::Array(rows) = &step.config["elements"] else { continue };
        for name in rows.first().and_then(Json::as_object).into_iter().flat_map(serde_json::Map::keys) {
            let mut rows = rows.clone();
            for row in rows.iter_mut().filter_map(Json::as_object_mut) {
                row.shift_remove(name);
            }
            candidates.push(with(plan, number, "elements", Json::Array(rows)));
        }
    }
    candidates
}
