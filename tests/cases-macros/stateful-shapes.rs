use pelton_sdk::prelude::*;

#[derive(Row)]
struct Event {
    number: i64,
}

#[derive(State)]
enum Either { //~ a state is a struct
    One,
}

#[derive(State)]
struct Kept {
    #[state(ttl = "1 hour")] //~ a duration is a whole number and a unit
    total: Value<i64>,
}

#[derive(State)]
struct Clocked {
    #[state(time = "event")] //~ there is no `ttl`
    total: Value<i64>,
}

#[derive(Timer)]
enum Noon {
    #[timer(time = "noon")] //~ the watermark
    Strikes,
}

#[derive(Timer)]
enum Late {
    By(i64), //~ a timer has no fields
}

struct Remembers;

#[stateful]
impl Remembers {
    fn process(&self, row: Event) -> bool { //~ what it remembers is in `state`
        row.number > 0
    }
}

struct Misnamed;

#[stateful]
impl Misnamed {
    fn process(event: Event) -> bool { //~ the parameters of `process` are config, row, state, timers and ctx
        event.number > 0
    }
}

struct Untimed;

#[stateful]
impl Untimed {
    fn process(row: Event, timers: &mut Noon) -> bool { //~ `timers` is a `&mut Timers<T>`
        row.number > 0
    }
}

struct Empty;

#[stateful]
impl Empty { //~ has a `fn process`
    fn keep(row: Event) -> bool {
        row.number > 0
    }
}

struct Folds;

#[combine]
impl Folds { //~ `impl CombineFn for ..`
    fn add() {}
}

fn main() {}
