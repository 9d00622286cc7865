use pelton_sdk::prelude::*;

struct Plain {
    line: String,
}

#[transform]
fn keep(row: Plain) -> bool { //~ `Plain` is not a row
    !row.line.is_empty()
}

fn main() {}
