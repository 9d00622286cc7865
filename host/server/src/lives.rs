//! The lives of a supervised pipeline, one after the other, and what is known of a swap that one of them has left to the next.

use crate::versions::Base;
use pelton_core::swap::Armed;
use pelton_runtime::Progress;
use pelton_runtime::swap::{Refused, Swapper};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// A life of a pipeline that can be told something.
#[derive(Clone)]
pub struct Life {
    /// What can be watched.
    pub progress: Arc<Progress>,
    /// Its checkpoints, and what changes its transforms; `None`: it takes none.
    pub swaps: Option<(Arc<Swapper>, Arc<Base>)>,
    /// What has ended the life before in the middle of a swap.
    pub at_fault: Option<Fault>,
}

/// The failure of a transform in the middle of a swap of it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The transform.
    pub transform: String,
    /// What a user is told.
    pub message: String,
}

impl Life {
    /// Whether it is that one.
    pub fn is(&self, other: &Life) -> bool {
        Arc::ptr_eq(&self.progress, &other.progress)
    }

    /// Whether it has ended, as far as is known.
    pub fn is_over(&self) -> bool {
        self.swaps.as_ref().is_some_and(|(swapper, _)| swapper.is_over())
    }
}

#[derive(Clone)]
enum Now {
    /// None has begun.
    Before,
    /// This one runs, or it has ended and the next one has not begun.
    In(Life),
    /// There will be none any more.
    Over,
}

/// See the module.
pub struct Lives {
    now: watch::Sender<Now>,
    /// Held by whoever looks after a swap that was left over.
    pub looking_after: tokio::sync::Mutex<()>,
    /// The last one that was left over and not made, and why.
    given_up: Mutex<Option<(Armed, Refused)>>,
}

impl Lives {
    /// None yet.
    pub fn new() -> Lives {
        Lives { now: watch::Sender::new(Now::Before), looking_after: tokio::sync::Mutex::default(), given_up: Mutex::default() }
    }

    /// One has begun.
    pub fn begins(&self, life: Life) {
        let _ = self.now.send_replace(Now::In(life));
    }

    /// No other will begin.
    pub fn end(&self) {
        let _ = self.now.send_replace(Now::Over);
    }

    /// The one that runs.
    pub fn now(&self) -> Option<Life> {
        match &*self.now.borrow() {
            Now::In(life) => Some(life.clone()),
            Now::Before | Now::Over => None,
        }
    }

    /// Waits for another life than this one; `None`: none will come.
    pub async fn after(&self, last: Option<&Life>) -> Option<Life> {
        let mut now = self.now.subscribe();
        let is_other = |now: &Now| match now {
            Now::Before => false,
            Now::In(life) => last.is_none_or(|last| !life.is(last)),
            Now::Over => true,
        };
        match now.wait_for(is_other).await.as_deref() {
            Ok(Now::In(life)) => Some(life.clone()),
            _ => None,
        }
    }

    /// A swap that was left over is not made.
    pub fn give_up(&self, armed: Armed, why: Refused) {
        *self.given_up.lock().expect("no holder of this lock panics") = Some((armed, why));
    }

    /// Why this swap was not made, if it was left over.
    pub fn why_given_up(&self, armed: &Armed) -> Option<Refused> {
        let given_up = self.given_up.lock().expect("no holder of this lock panics");
        given_up.as_ref().filter(|(other, _)| other == armed).map(|(_, why)| why.clone())
    }
}

impl Default for Lives {
    fn default() -> Lives {
        Lives::new()
    }
}
