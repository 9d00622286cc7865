//! Programs, cases and differential tests of the whole system.
