//! Tasks, channels and operators: runs a plan.
