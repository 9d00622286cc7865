//! Swaps of a host's pipelines: transforms become other versions of themselves while the pipeline runs, and what runs then is a version of the pipeline.
//!
//! A swap is recorded with the checkpoint that has its cut, and the version that it makes is written down after it. So what is taking over is
//! written down before ([`Desired::taking_over`]), and a start after a crash between the two looks which version runs.

use super::{Checked, Host, Reason, load, one_change};
use crate::control::Orders;
use crate::folder::{Deployment, Desired, Wanted};
use crate::hosted::{Hosted, Phase, inside};
use crate::refusal::{Refusal, Why};
use crate::swaps::{self, Beside, Candidate, Order, Watch};
use crate::versions::{Asked, Loaded};
use pelton_core::swap::{Made, Version};
use pelton_runtime::swap::{Refused, Swapped, history_of};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// After a crash: how long a start waits until it is known whether a swap was made.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a version has not taken over.
pub enum TakeOver {
    /// It can, with a start from a checkpoint.
    NeedsStart(String),
    /// It cannot.
    Refused(Refusal),
}

/// What is to be swapped, and how.
pub struct Swap {
    /// All of it or nothing.
    pub order: Order,
    /// Look at it for so long, and go back if it is worse.
    pub watch: Option<Duration>,
    /// Plugins may be older than what the host has had.
    pub older: bool,
}

fn refusal(refused: &Refused) -> Refusal {
    Refusal::new(Why::Invalid, refused.to_string())
}

/// What a running pipeline is told.
fn running(hosted: &Hosted) -> Result<Arc<Orders>, Refusal> {
    let name = &hosted.name;
    let orders = hosted.orders().filter(|_| matches!(hosted.phase(), Phase::Running | Phase::Restarting));
    orders.ok_or_else(|| Refusal::new(Why::Conflict, format!("`{name}` does not run; `pelton resume {name}` lets it run")))
}

impl Host {
    /// Makes transforms of a running pipeline other versions of themselves. Gives what is known of the swap, and the version that it has made.
    pub async fn swap(self: &Arc<Self>, name: &str, wanted: Swap, reason: Reason) -> Result<(Option<u64>, Value), Refusal> {
        let hosted = self.pipeline(name)?;
        let _change = one_change(&hosted)?;
        let orders = running(&hosted)?;
        let Swap { order, watch, older } = wanted;
        let changes = swaps::named(&orders.lives, order.changes).map_err(|refused| refusal(&refused))?;
        let order = Order { changes, ..order };
        let before = self.folder.desired(name)?;
        let (deployment, checked) = self.with_changes(name, &order.changes, older).await?;
        if order.dry_run {
            let tried = swaps::swap(&orders.lives, order).await.map_err(|refused| refusal(&refused))?;
            return Ok((Some(before.version), json!(tried)));
        }
        let watching = watch.map(|wait| (Watch::begin(&orders.lives, &order.changes), wait));
        let version = self.keep(name, checked.now, deployment, with_note(reason, &order.changes))?;
        let swapped = self.in_place(name, version, &orders, order).await;
        let swapped = swapped.map_err(|refusal| self.refused(name, version, refusal))?;
        self.components.trust().note(&checked.plugins)?;
        let mut told = json!(swapped);
        if let Some((watching, wait)) = watching {
            // If the host dies now, it may be back.
            let desired = Desired::new(Wanted::Running, version);
            self.folder.keep_desired(name, &Desired { taking_over: Some(before.version), ..desired })?;
            let taken_back = watching.look(&orders.lives, wait).await;
            let is_back = taken_back.as_ref().is_some_and(|taken_back| taken_back.is_back);
            self.folder.keep_desired(name, if is_back { &before } else { &desired })?;
            if let Some(taken_back) = taken_back {
                told["rolled_back"] = taken_back.reason.into();
            }
            return Ok((Some(if is_back { before.version } else { version }), told));
        }
        Ok((Some(version), told))
    }

    /// Makes a transform of a running pipeline what it was before.
    pub async fn swap_back(self: &Arc<Self>, name: &str, transform: &str, reason: Reason) -> Result<(Option<u64>, Value), Refusal> {
        let orders = running(&*self.pipeline(name)?)?;
        let back = swaps::way_back(&orders.lives, transform).await.map_err(|refused| refusal(&refused))?;
        let note = reason.note.or_else(|| Some(format!("`{transform}` goes back")));
        let order = Order { changes: vec![back], ..Order::default() };
        self.swap(name, Swap { order, watch: None, older: true }, Reason { note, ..reason }).await
    }

    /// Puts a candidate beside what runs; one that is promoted makes a version.
    pub async fn beside(self: &Arc<Self>, name: &str, wanted: Beside, reason: Reason) -> Result<(Option<u64>, Value), Refusal> {
        let hosted = self.pipeline(name)?;
        let orders = running(&hosted)?;
        let changes = swaps::named(&orders.lives, wanted.changes.clone()).map_err(|refused| refusal(&refused))?;
        let promote = wanted.promote;
        self.with_changes(name, &changes, false).await?;
        let candidate = Candidate::begin(&orders.lives, wanted).await.map_err(|refused| refusal(&refused))?;
        let (mut told, taken_back) = candidate.watch().await;
        if taken_back.is_some() || !promote {
            return Ok((Some(self.folder.desired(name)?.version), told));
        }
        let _change = one_change(&hosted)?;
        let before = self.folder.desired(name)?;
        let (deployment, checked) = self.with_changes(name, &changes, false).await?;
        let version = self.keep(name, checked.now, deployment, with_note(reason, &changes))?;
        self.folder.keep_desired(name, &Desired { taking_over: Some(version), ..before })?;
        let promoted = candidate.promote().await;
        let promoted = self.settled(name, version, before, promoted);
        told["promoted"] = json!(promoted.map_err(|refused| self.refused(name, version, refusal(&refused)))?);
        self.components.trust().note(&checked.plugins)?;
        Ok((Some(version), told))
    }

    /// Swaps that were made of a pipeline, from old to new.
    pub async fn swaps(&self, name: &str) -> Result<Vec<Made>, Refusal> {
        self.pipeline(name)?;
        let store = self.folder.pipeline(name).join("state/checkpoints");
        if !store.exists() {
            return Ok(Vec::new());
        }
        let made = history_of(&store.display().to_string()).await;
        made.map_err(|message| Refusal::new(Why::Broken, format!("the swaps of `{name}` cannot be read: {message}")))
    }

    /// The version that is to run, with more changes on top. `older`: with plugins that may be older than what the host has had.
    async fn with_changes(self: &Arc<Self>, name: &str, changes: &[Asked], older: bool) -> Result<(Deployment, Checked), Refusal> {
        let current = self.folder.version(name, self.folder.desired(name)?.version)?;
        let deployment = current.deployment.changed(changes);
        let checked = self.check(&deployment, current.now).await?;
        if !older {
            self.components.trust().not_older(&checked.plugins, &self.digests_that_run(name))?;
        }
        Ok((deployment, checked))
    }

    async fn in_place(&self, name: &str, version: u64, orders: &Orders, order: Order) -> Result<Option<Swapped>, Refusal> {
        self.take_over(name, version, orders, order).await.map_err(|why| match why {
            TakeOver::Refused(refusal) => refusal,
            TakeOver::NeedsStart(why) => Refusal::new(Why::Invalid, format!("{why}\n  or change the file, and use `pelton deploy`")),
        })
    }

    /// Lets a version that is kept take over while the pipeline runs. `None`: it is what runs already.
    pub(super) async fn take_over(&self, name: &str, version: u64, orders: &Orders, order: Order) -> Result<Option<Swapped>, TakeOver> {
        let before = self.folder.desired(name).map_err(TakeOver::Refused)?;
        let keep = |desired: &Desired| self.folder.keep_desired(name, desired).map_err(TakeOver::Refused);
        if order.changes.is_empty() {
            // Something has another name and is the same.
            return keep(&Desired::new(Wanted::Running, version)).map(|()| None);
        }
        keep(&Desired { taking_over: Some(version), ..before })?;
        let swapped = swaps::swap(&orders.lives, order).await;
        match self.settled(name, version, before, swapped) {
            Ok(swapped) => Ok(Some(swapped)),
            Err(refused) if refused.needs_start => Err(TakeOver::NeedsStart(refused.to_string())),
            Err(refused) => {
                let goes_on = before.version;
                let message = format!("version {version} of `{name}` cannot take over while it runs: {refused}\nversion {goes_on} goes on");
                Err(TakeOver::Refused(Refusal::new(Why::Invalid, message)))
            }
        }
    }

    /// Writes down what came of a swap.
    fn settled(&self, name: &str, version: u64, before: Desired, swapped: Result<Swapped, Refused>) -> Result<Swapped, Refused> {
        let desired = match &swapped {
            Ok(swapped) => {
                inside(name, || tracing::info!(version, epoch = swapped.epoch, "the version took over while the pipeline ran"));
                Some(Desired::new(Wanted::Running, version))
            }
            // The next start finds out.
            Err(refused) if refused.undecided.is_some() => None,
            Err(_) => Some(before),
        };
        if let Some(Err(unwritten)) = desired.map(|desired| self.folder.keep_desired(name, &desired)) {
            tracing::error!(pipeline = name, "{unwritten}; the next start finds out which version runs");
        }
        swapped
    }

    /// At a start: which of two versions runs, where a crash or an end has cut a swap off.
    pub(super) async fn find_out(&self, hosted: &Arc<Hosted>, desired: Desired) -> Result<(), Refusal> {
        let (Some(other), Some(orders)) = (desired.taking_over, hosted.orders()) else { return Ok(()) };
        let name = &hosted.name;
        let Ok(Some(life)) = tokio::time::timeout(PATIENCE, orders.lives.after(None)).await else { return Ok(()) };
        swaps::make_left_over(&orders.lives, &life).await;
        let Some((swapper, base)) = &life.swaps else { return Ok(()) };
        let versions = swapper.versions().await;
        let kept = self.folder.version(name, other)?;
        let (components, state) = (self.components.clone(), self.folder.pipeline(name).join("state"));
        // Plugins are compiled.
        let loaded = tokio::task::spawn_blocking(move || load(&components, &kept.deployment, kept.now, &state));
        let loaded = loaded.await.map_err(|panic| Refusal::new(Why::Broken, format!("internal error: {panic}")))?;
        let Ok((there, Loaded { .. })) = loaded else { return Ok(()) };
        let is_there =
            |(transform, version): (&String, &Version)| base.file.get(transform).is_some_and(|own| versions.of(transform, own) == *version);
        let runs = if there.file.iter().all(is_there) { other } else { desired.version };
        inside(name, || {
            tracing::info!(version = runs, "this version goes on, after a swap between {} and {other} was cut off", desired.version);
        });
        self.folder.keep_desired(name, &Desired { version: runs, taking_over: None, ..desired })
    }
}

/// What a history says where nobody has said why.
fn with_note(reason: Reason, changes: &[Asked]) -> Reason {
    let names: Vec<String> = changes.iter().map(|change| format!("`{}`", change.transform)).collect();
    let note = reason.note.or_else(|| Some(format!("swap of {}", names.join(", "))));
    Reason { note, ..reason }
}
