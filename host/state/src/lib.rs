//! Cells, timers and holds: the only place where operators keep state.
