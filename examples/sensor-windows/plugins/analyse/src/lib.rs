//! Says of a session of readings how long it was and how far its values are apart.

use pelton_sdk::prelude::*;

/// The readings of one sensor with less than 30 s between them.
#[derive(Row)]
pub struct Session<'a> {
    pub sensor: &'a str,
    pub values: Vec<f64>,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
}

#[derive(Row, Debug, PartialEq)]
pub struct Analysis<'a> {
    pub sensor: &'a str,
    pub began: Timestamp,
    /// From the first reading to the end of the gap.
    pub seconds: i64,
    pub readings: i64,
    /// The largest value less the smallest.
    pub range: f64,
}

/// Analyses a session.
#[transform]
pub fn analyse(session: Session<'_>) -> Result<Analysis<'_>, String> {
    let (least, most) = session.values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
    if session.values.is_empty() {
        return Err("a session without readings".into());
    }
    Ok(Analysis {
        sensor: session.sensor,
        began: session.window_start,
        seconds: (session.window_end.0 - session.window_start.0) / 1_000_000,
        readings: session.values.len() as i64,
        range: most - least,
    })
}


plugin!(analyse);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing;

    #[test]
    fn a_session_is_summed_up() {
        let session = |values| Session { sensor: "a", values, window_start: Timestamp(0), window_end: Timestamp(42_000_000) };
        let run = testing::run::<analyse>([session(vec![1.5, 4.0]), session(vec![])]);
        assert_eq!(run.rows::<Analysis<'_>>(""), [Analysis { sensor: "a", began: Timestamp(0), seconds: 42, readings: 2, range: 2.5 }]);
        assert_eq!(run.errors.len(), 1);
    }
}
