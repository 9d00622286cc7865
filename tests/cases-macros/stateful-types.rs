use pelton_sdk::prelude::*;

#[derive(Row)]
struct Event {
    number: i64,
}

#[derive(Row)]
struct Other {
    number: i64,
}

#[derive(State)]
struct Kept {
    borrowed: Value<&'static str>, //~ `&'static str` cannot be kept in state
}

#[derive(State)]
struct Plain {
    total: i64, //~ `i64` is no kind of state
}

#[derive(State)]
struct Keyed {
    by: Map<f64, i64>, //~ `f64` cannot be the key of a map in state
}

#[derive(Timer)]
enum Clock {
    End,
}

struct Two;

#[stateful]
impl Two {
    fn process(row: Event, timers: &mut Timers<Clock>) -> Option<Event> {
        Some(row)
    }
    fn on_timer(_timer: Clock) -> Option<Other> { //~ expected `Event`, found `Other`
        None
    }
}

struct Nothing;

plugin!(Nothing); //~ `Nothing` is not a transform

fn main() {}
