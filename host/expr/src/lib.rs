//! Expressions over Arrow: Beam's generic language and SQL scalar expressions.
