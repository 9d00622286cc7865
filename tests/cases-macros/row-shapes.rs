use pelton_sdk::prelude::*;

#[derive(Row)]
struct Pair(i64, i64); //~ a row's fields have names

#[derive(Row)]
enum Either { //~ for an enum of outputs derive Outputs
    Left,
}

#[derive(Outputs)]
struct Single { //~ for a struct derive Row
    left: i64,
}

#[derive(Config)]
struct Settings {
    #[config(defualt = 3)] //~ takes `#[config(default = ..)]`
    size: i64,
}

fn main() {}
