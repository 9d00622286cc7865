//! Beam YAML to a checked graph and a physical plan.
