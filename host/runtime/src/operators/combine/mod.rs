//! Combine: aggregates per key and window, and gives panes out when the trigger says so.
//!
//! In reading order:
//! - [`core`]: keys, cells, aggregates, panes on their way out.
//! - [`plugin`]: aggregates of plugins; [`evolve`]: accumulators that another version of a plugin has written; [`renew`]: another version at a barrier.
//! - [`plain`]: one window a row, the default trigger.
//! - [`sliced`]: sliding windows with the default trigger; a row is added once, however many windows it is in.
//! - [`levels`]: windows of several lengths, each made from the one below.
//! - [`hot`]: keys with very many rows.
//! - [`ruled`]: everything else, by the rule of `pelton_core::pane`; sessions among them.
//!
//! Invariants: all that is remembered lies in the cells and timers of `host/state`; what a window gives out does not depend
//! on how rows are cut into batches.

mod core;
mod evolve;
mod hot;
mod levels;
mod plain;
mod plugin;
mod renew;
mod ruled;
mod sliced;
#[cfg(test)]
pub(crate) mod tests;
mod way;

pub(crate) use self::core::Aggregate;
use self::core::{Core, Incoming};
use self::hot::HotKeys;
use self::levels::Levels;
use self::plain::Plain;
pub(crate) use self::renew::renewed;
use self::ruled::Ruled;
use self::sliced::Sliced;
use self::way::Way;
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::{NodeMetrics, UserMetrics, WindowCounts};
use crate::operator::{Operator, Out, Port, Refusals, Renewed};
use crate::swap::NewVersion;
use crate::unkeyed;
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use pelton_core::evolution::Book;
use pelton_core::pane::PaneRule;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, WindowFn, WindowingStrategy};
use pelton_expr::Expression;
use pelton_pipeline::graph::AggregateFunction;
use pelton_plugin::CombineBinding;
use pelton_state::{Cells, Scratch};
use std::sync::Arc;

/// Batches between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;

/// What a Combine does; the same for all its tasks.
#[derive(Clone)]
pub struct CombinePlan {
    /// Key columns.
    pub group_by: Vec<Expression>,
    /// Their types.
    pub group_types: Vec<DataType>,
    /// Aggregates and what they are of.
    pub aggregates: Vec<(AggregateFunction, Option<Expression>)>,
    /// By number of the aggregate, those that are a plugin's; may be shorter.
    pub plugins: Vec<Option<CombineBinding>>,
    /// Columns of the output: keys, then aggregates.
    pub schema: SchemaRef,
    /// Columns of the output `late`.
    pub late_schema: SchemaRef,
    /// Its port.
    pub late_port: Port,
    /// Windows of the input and when they fire.
    pub strategy: WindowingStrategy,
    /// Of a RollUp: the lengths of its windows from fine to coarse, each with its output.
    pub levels: Vec<(Duration, Port)>,
    /// Rows come from tasks that they were spread over to be aggregated there (`fanout`).
    pub spread: bool,
    /// Bytes of state that this task may hold.
    pub state_limit: usize,
}

/// The operator.
pub struct Combine {
    core: Core,
    way: Box<dyn Way>,
    hot: HotKeys,
    batches: u32,
    /// The last output watermark.
    given: Instant,
    /// Whether the last word was that nothing comes.
    idle: bool,
    refusals: Refusals,
}

impl Combine {
    /// With no state.
    pub fn new(plan: CombinePlan, counts: Arc<WindowCounts>, refusals: Refusals) -> Result<Combine, Failure> {
        let mut core = Core::new(plan, counts, refusals.clone())?;
        let by_default = PaneRule::new(&core.plan.strategy).is_default();
        let way: Box<dyn Way> = match core.plan.strategy.window_fn {
            _ if !core.plan.levels.is_empty() => Box::new(Levels::new(&mut core)),
            WindowFn::Sliding { size, period, offset } if by_default && Sliced::fits(size, period) => {
                Box::new(Sliced::new(&mut core, size, period, offset))
            }
            window_fn if by_default && window_fn.is_single() => Box::new(Plain::new(&mut core)),
            _ => Box::new(Ruled::new(&mut core)),
        };
        let hot = HotKeys::new(&core.plan.group_types).map_err(|message| core.internal(message))?;
        Ok(Combine { core, way, hot, batches: 0, given: Instant::MIN, idle: false, refusals })
    }

    /// The same, counting what aggregates of plugins count.
    pub fn with_metrics(mut self, metrics: Arc<NodeMetrics>) -> Combine {
        self.core.metrics = Some(metrics);
        self
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.batches = self.batches.wrapping_add(1);
        if !self.batches.is_multiple_of(MEASURE_EVERY) || self.core.cells.evicts() {
            return Ok(());
        }
        let (held, limit) = (self.core.cells.bytes(), self.core.plan.state_limit);
        if held > limit {
            let mib = |bytes: usize| bytes / (1 << 20);
            return Err(Failure::State { transform: self.refusals.transform.clone(), held: mib(held), limit: mib(limit) });
        }
        Ok(())
    }

    /// The output watermark: the input's, unless something older may still come out.
    fn output_watermark(&mut self, woke: bool, out: &mut Out) {
        let watermark = self.way.hold(&self.core).map_or(self.core.watermark, |hold| hold.min(self.core.watermark));
        if watermark > self.given || woke {
            self.given = self.given.max(watermark);
            out.control(Message::Watermark(Watermark::Active(self.given)));
        }
    }
}

#[async_trait(?Send)]
impl Operator for Combine {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        self.begin().await?;
        let plan = &self.core.plan;
        let groups = group_columns(&self.refusals.transform, &plan.group_by, &batch)?;
        let mut values = Vec::with_capacity(plan.aggregates.len());
        for (_, value) in &plan.aggregates {
            values.push(match value {
                None => None,
                Some(expression) => {
                    let evaluated = expression.evaluate(&batch.rows);
                    self.refusals.refuse(&batch, &evaluated.errors, out)?;
                    Some(evaluated.array)
                }
            });
        }
        encode(&self.core.encoder, &groups, batch.num_rows(), &mut self.core.keys);
        self.hot.rows(&self.core.keys);
        self.way.rows(&mut self.core, &Incoming { batch, values }, out).await?;
        self.output_watermark(false, out);
        self.measure()
    }

    async fn partial(&mut self, _input: usize, batch: Batch, _out: &mut Out) -> Result<u64, Failure> {
        let columns = batch.rows.columns();
        let (keys, counts) = (columns[0].as_binary::<i32>(), columns[1].as_primitive::<Int64Type>().values());
        self.hot.partial(keys, counts);
        self.core.keys.clear();
        self.core.keys.offsets.push(0);
        for key in keys.iter().flatten() {
            self.core.keys.bytes.extend_from_slice(key);
            self.core.keys.offsets.push(self.core.keys.bytes.len() as u32);
        }
        let windows = batch.windows.as_ref().ok_or_else(|| self.core.internal("partial results have windows"))?;
        let rows: Vec<(u32, u32)> = windows.index.iter().enumerate().map(|(row, window)| (row as u32, *window)).collect();
        let slots = self.way.cells(&mut self.core, &rows, &windows.table)?;
        self.core.add_partial(&slots, counts, &columns[2..]).await?;
        self.measure()?;
        Ok(counts.iter().sum::<i64>() as u64)
    }

    async fn portion(&mut self, until: Instant, out: &mut Out) -> Result<bool, Failure> {
        if !self.core.cells.evicts() {
            return Ok(false);
        }
        self.core.watermark = self.core.watermark.max(until);
        self.way.step(&mut self.core, out).await
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        match watermark {
            Watermark::Active(at) => {
                self.core.watermark = self.core.watermark.max(at);
                self.way.advance(&mut self.core, out).await?;
                let woke = std::mem::replace(&mut self.idle, false);
                self.output_watermark(woke, out);
            }
            Watermark::Idle => {
                self.idle = true;
                out.control(Message::Watermark(watermark));
            }
        }
        Ok(())
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.begin().await?;
        self.way.tick(&mut self.core, out).await?;
        self.output_watermark(false, out);
        Ok(())
    }

    async fn end(&mut self, end: End, out: &mut Out) -> Result<(), Failure> {
        if end == End::Drained {
            self.core.watermark = Instant::MAX;
            self.way.advance(&mut self.core, out).await?;
        }
        Ok(())
    }

    fn heaviest(&self) -> Vec<(String, u64)> {
        self.hot.heaviest()
    }

    fn held(&self) -> u64 {
        self.way.held(&self.core)
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        visit("cells", &mut self.core.cells);
    }

    fn evict_to(&mut self, scratch: &Scratch) -> Result<(), Failure> {
        let opened = self.core.cells.evict_to(scratch);
        opened.map_err(|error| Failure::Scratch { transform: self.refusals.transform.clone(), error })
    }

    fn make_room(&mut self) -> Result<(), Failure> {
        match self.core.cells.evicts() {
            true => self.way.make_room(&mut self.core),
            false => Ok(()),
        }
    }

    fn book(&self) -> Option<Arc<Book>> {
        self.core.plan.has_plugins().then(|| self.core.evolving.book())
    }

    fn is_settling(&self) -> bool {
        self.core.evolving.is_settling()
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        self.sweep_some().await
    }

    async fn renew(&mut self, version: &NewVersion) -> Result<Renewed, Failure> {
        self.take_over(version).map(|()| Renewed::Itself)
    }

    fn counted(&self) -> Option<&UserMetrics> {
        Some(&self.core.counted)
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        vec![unkeyed::of_watermark(self.core.watermark)]
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.core.watermark = unkeyed::earliest_watermark(unkeyed)?;
        self.way.restore(&mut self.core);
        let old = self.core.cells.old();
        self.core.evolving.left(old);
        Ok(())
    }
}
