use pelton_sdk::prelude::*;

#[transform]
fn nothing() -> bool { //~ the parameters of this transform are
    true
}

struct Stateful;

impl Stateful {
    #[transform]
    fn keep(&self, row: i64) -> bool { //~ a plain function, without self
        row > 0
    }
}

#[transform(apend)] //~ the options are append
fn keep(row: i64) -> bool {
    row > 0
}

fn main() {}
