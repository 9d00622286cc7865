use pelton_sdk::prelude::*;

#[derive(Row)]
struct Line<'a> {
    line: &'a str,
}

#[transform]
async fn keep(row: Line<'_>) -> bool { //~ it cannot be async
    !row.line.is_empty()
}

fn main() {}
