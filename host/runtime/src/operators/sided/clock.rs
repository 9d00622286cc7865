//! How far one input of a task has come, over all channels that feed it.

use crate::message::End;
use pelton_core::Instant;
use pelton_core::watermark::{Merged, Watermark};

/// One input.
pub struct Clock {
    channels: Vec<usize>,
    merged: Merged,
    watermark: Instant,
    idle: bool,
    open: usize,
    end: End,
}

impl Clock {
    /// At the beginning of time. `channels`: the task's numbers of those that feed it.
    pub fn new(channels: &[usize]) -> Clock {
        Clock {
            channels: channels.to_vec(),
            merged: Merged::new(channels.len()),
            watermark: Instant::MIN,
            idle: false,
            open: channels.len(),
            end: End::Drained,
        }
    }

    /// A channel has told its watermark.
    pub fn moved(&mut self, channel: usize, watermark: Watermark) {
        let number = self.number(channel);
        let merged = self.merged.update(number, Some(watermark));
        self.is_at(merged);
    }

    /// A channel has ended.
    pub fn ended(&mut self, channel: usize, end: End) {
        self.end = self.end.and(end);
        self.open -= 1;
        let number = self.number(channel);
        let merged = end.let_go(&mut self.merged, number);
        self.is_at(merged);
    }

    fn number(&self, channel: usize) -> usize {
        self.channels.iter().position(|own| *own == channel).expect("the channel feeds this input")
    }

    fn is_at(&mut self, merged: Option<Watermark>) {
        match merged {
            Some(Watermark::Active(at)) => (self.watermark, self.idle) = (at, false),
            Some(Watermark::Idle) => self.idle = true,
            None => {}
        }
    }

    /// No row before this comes; the end of time when none comes at all.
    pub fn watermark(&self) -> Instant {
        if self.has_ended() { Instant::MAX } else { self.watermark }
    }

    /// Whether nothing has come for a while.
    pub fn is_idle(&self) -> bool {
        self.idle && self.open > 0
    }

    /// Whether all of it has come. An input that the user stopped has not.
    pub fn has_ended(&self) -> bool {
        self.open == 0 && self.end == End::Drained
    }
}
