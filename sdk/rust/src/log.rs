//! Lines for the operator's log: `pelton_sdk::info!("opened {path}")`. Never part of a result; a replay may say them twice.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Sends a line to the host; in native tests, to standard error.
pub fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::component::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}

macro_rules! levels {
    ($dollar:tt $($name:ident $level:ident),+) => {$(
        /// Writes a line to the operator's log at this level.
        #[macro_export]
        macro_rules! $name {
            ($dollar($text:tt)+) => { $crate::log::write($crate::log::Level::$level, &::std::format!($dollar($text)+)) };
        }
    )+};
}
levels!($ trace Trace, debug Debug, info Info, warn Warn, error Error);
