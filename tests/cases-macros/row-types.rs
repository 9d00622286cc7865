use pelton_sdk::prelude::*;

#[derive(Row)] //~ `Rc<i64>` is not a row
struct Shared {
    count: std::rc::Rc<i64>, //~ cannot be read from a column
}

fn main() {}
