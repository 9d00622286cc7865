//! Aggregating state: values are folded into an accumulator as they come.

use super::encode::StateValue;
use super::{Cell, Handle, Kind, Moment, Value};
use crate::keyed::StateWrites;
use crate::wire::{StateSpec, Ttl};

/// How values are folded. Implement it for a type of your own, or take one of [`Count`], [`Sum`], [`Min`], [`Max`], [`Mean`].
pub trait Aggregate: 'static {
    type Input;
    /// What is kept; its default is the empty one.
    type Accumulator: StateValue + Clone + Default;
    type Output;
    fn add(accumulator: &mut Self::Accumulator, input: Self::Input);
    fn get(accumulator: &Self::Accumulator) -> Self::Output;
}

/// The accumulator of a cell.
pub struct Aggregating<A: Aggregate>(Value<A::Accumulator>);

impl<A: Aggregate> Aggregating<A> {
    /// Folds a value in, and sets the time to live anew.
    pub fn add(&mut self, input: A::Input) {
        let mut accumulator = self.0.get().cloned().unwrap_or_default();
        A::add(&mut accumulator, input);
        self.0.set(accumulator);
    }

    /// The aggregate of what was added; of nothing where there is nothing.
    pub fn get(&self) -> A::Output {
        match self.0.get() {
            Some(accumulator) => A::get(accumulator),
            None => A::get(&A::Accumulator::default()),
        }
    }

    /// Starts anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<A: Aggregate> Handle for Aggregating<A> {
    fn begin(&mut self, moment: Moment) {
        self.0.begin(moment);
    }
    fn end(&mut self, succeeded: bool) {
        self.0.end(succeeded);
    }
    fn finish(&mut self, group: u32, writes: &mut StateWrites) {
        self.0.finish(group, writes);
    }
}

impl<A: Aggregate> Kind for Aggregating<A> {
    fn spec(name: &'static str, version: u32, ttl: Option<Ttl>) -> StateSpec {
        Value::<A::Accumulator>::spec(name, version, ttl)
    }
    fn load(cell: &Cell, number: u32, name: &'static str, ttl: Option<Ttl>) -> Aggregating<A> {
        Aggregating(Value::load(cell, number, name, ttl))
    }
}

/// How many values.
pub struct Count;
/// Their sum; integers saturate.
pub struct Sum<T>(std::marker::PhantomData<T>);
/// The smallest.
pub struct Min<T>(std::marker::PhantomData<T>);
/// The largest.
pub struct Max<T>(std::marker::PhantomData<T>);
/// The mean.
pub struct Mean;

impl Aggregate for Count {
    type Input = ();
    type Accumulator = u64;
    type Output = u64;
    fn add(count: &mut u64, (): ()) {
        *count += 1;
    }
    fn get(count: &u64) -> u64 {
        *count
    }
}

macro_rules! sum {
    ($($type:ty, |$sum:ident, $value:ident| $add:expr;)+) => {$(
        impl Aggregate for Sum<$type> {
            type Input = $type;
            type Accumulator = $type;
            type Output = $type;
            fn add(sum: &mut $type, $value: $type) {
                let $sum = *sum;
                *sum = $add;
            }
            fn get(sum: &$type) -> $type {
                *sum
            }
        }
    )+};
}
sum! { i64, |sum, value| sum.saturating_add(value); u64, |sum, value| sum.saturating_add(value); f64, |sum, value| sum + value; }

macro_rules! extreme {
    ($($name:ident, $better:ident;)+) => {$(
        impl<T: StateValue + Clone + PartialOrd + 'static> Aggregate for $name<T> {
            type Input = T;
            type Accumulator = Option<T>;
            type Output = Option<T>;
            fn add(kept: &mut Option<T>, value: T) {
                if kept.as_ref().is_none_or(|kept| value.$better(kept)) {
                    *kept = Some(value);
                }
            }
            fn get(kept: &Option<T>) -> Option<T> {
                kept.clone()
            }
        }
    )+};
}
extreme! { Min, lt; Max, gt; }

impl Aggregate for Mean {
    type Input = f64;
    type Accumulator = (f64, u64);
    type Output = Option<f64>;
    fn add((sum, count): &mut (f64, u64), value: f64) {
        *sum += value;
        *count += 1;
    }
    fn get((sum, count): &(f64, u64)) -> Option<f64> {
        (*count > 0).then(|| sum / *count as f64)
    }
}
