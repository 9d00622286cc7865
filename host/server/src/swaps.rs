//! Swaps of a supervised pipeline: what was asked becomes a swap of the life that runs, is watched, and is gone back from.
//!
//! A life that ends in the middle of a swap leaves it to the next one, which finds out whether it was made, and else makes it again
//! ([`make_left_over`]). Whoever asked waits for that, and is told what became of it ([`outcome`]).

use crate::ServerError;
use crate::lives::{Fault, Life, Lives};
use crate::versions::{Asked, Base};
use pelton_core::swap::{Armed, Change, transform_of};
use pelton_runtime::Failure;
use pelton_runtime::recording::take::{Order as RecordOrder, Taken};
use pelton_runtime::swap::trial::Trial;
use pelton_runtime::swap::{ALL, Allowed, Experiment, Kind, Refused, Swapped, Swapper, Wanted};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often a new version is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// With fewer rows nothing is concluded.
const LEAST_ROWS: u64 = 100;
/// A new version may refuse so many times as many rows as the old one, and this share more.
const TIMES: f64 = 2.0;
const SHARE: f64 = 0.01;

/// Said where no life comes that could find out.
const ENDED: &str = "the pipeline ended before it was decided whether the swap counts";

/// What somebody wants to be swapped.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// All of it or nothing.
    pub changes: Vec<Asked>,
    /// All checks, and nothing else.
    pub dry_run: bool,
    /// There need be no way back.
    pub irreversible: bool,
}

fn swaps(life: &Life) -> Result<(&Swapper, &Base), Refused> {
    let none = || Refused::new("the pipeline takes no checkpoints, so nothing would record the cut", "run it with --state DIR");
    life.swaps.as_ref().map(|(swapper, base)| (&**swapper, &**base)).ok_or_else(none)
}

/// Records a transform of a running life.
pub async fn record(life: &Life, order: RecordOrder) -> Result<Taken, Refused> {
    let none = || Refused::new("the pipeline takes no checkpoints, and has no versions to record", "run it with --state DIR");
    let (swapper, _) = life.swaps.as_ref().ok_or_else(none)?;
    let here = tokio::runtime::Handle::current();
    // Others go on meanwhile: this thread's work is taken over.
    tokio::task::block_in_place(|| here.block_on(pelton_runtime::recording::take::record(swapper, &order)))
}

/// Swaps transforms of a pipeline. A restart in the middle is waited for.
pub async fn swap(lives: &Lives, order: Order) -> Result<Swapped, Refused> {
    let over = || Refused::new("the pipeline has come to its end", "start it again, and swap then");
    let mut life = match lives.now() {
        Some(life) => life,
        None => lives.after(None).await.ok_or_else(over)?,
    };
    loop {
        make_left_over(lives, &life).await;
        match swap_in(&life, &order).await {
            Err(Refused { undecided: Some(armed), .. }) => return outcome(lives, life, &armed).await,
            // Nothing of it was written down.
            Err(refused) if life.is_over() => life = lives.after(Some(&life)).await.ok_or(refused)?,
            done => return done,
        }
    }
}

/// Swaps transforms of a running life.
async fn swap_in(life: &Life, order: &Order) -> Result<Swapped, Refused> {
    let wanted = loaded(life, &order.changes).await?;
    let (swapper, _) = swaps(life)?;
    swapper.swap(Wanted { dry_run: order.dry_run, irreversible: order.irreversible, ..wanted }).await
}

/// The pipeline of a life, loaded with changes.
async fn loaded(life: &Life, changes: &[Asked]) -> Result<Wanted, Refused> {
    let (swapper, base) = swaps(life)?;
    let versions = swapper.versions().await;
    let here = tokio::runtime::Handle::current();
    let fetch = |digest: &str| here.block_on(swapper.component(digest)).map_err(|failure: Failure| failure.to_string());
    // Plugins are compiled.
    let wanted = tokio::task::block_in_place(|| base.wanted(changes, &versions, &fetch));
    wanted.map_err(|error| Refused::new(error.text(), "mend what is named; the version that runs goes on"))
}

/// What is asked for, by the names that swaps know it by.
pub fn named(lives: &Lives, changes: Vec<Asked>) -> Result<Vec<Asked>, Refused> {
    let life = running(lives)?;
    let (_, base) = swaps(&life)?;
    let named = |asked: Asked| Ok(Asked { transform: base.name_of(&asked.transform)?, ..asked });
    let named: Result<Vec<Asked>, ServerError> = changes.into_iter().map(named).collect();
    named.map_err(|error| Refused::new(error.to_string(), "say which one"))
}

/// The transform of what a swap names.
fn transform_in<'a>(life: &Life, name: &'a str) -> &'a str {
    transform_of(name, life.progress.nodes.iter().map(|node| node.name.as_str()))
}

/// What became of a swap whose life has ended in the middle of it.
async fn outcome(lives: &Lives, mut last: Life, armed: &Armed) -> Result<Swapped, Refused> {
    let unknown = |failure: &dyn std::fmt::Display| {
        let message =
            format!("the pipeline was restarted in the middle of the swap, and it cannot be found out whether it was made: {failure}");
        Refused { undecided: Some(Box::new(armed.clone())), ..Refused::new(message, "look with `pelton plugin history` at what runs") }
    };
    loop {
        let next = lives.after(Some(&last)).await;
        if let Some(life) = &next {
            make_left_over(lives, life).await;
        }
        let (swapper, _) = swaps(next.as_ref().unwrap_or(&last))?;
        match swapper.made(armed).await {
            Ok(Some(swapped)) => {
                let note = "the pipeline was restarted in the middle, and went on from its last checkpoint".to_string();
                return Ok(Swapped { notes: vec![note], ..swapped });
            }
            Ok(None) => {}
            Err(failure) => return Err(unknown(&failure)),
        }
        if let Some(refused) = lives.why_given_up(armed) {
            return Err(refused);
        }
        match next {
            // It had not been looked after yet when it ended, too.
            Some(life) if life.is_over() => last = life,
            Some(_) => return Err(unknown(&"it is neither made nor given up")),
            None => {
                let refused = Refused::new(ENDED, "start it again: a swap that does not count is made then");
                return Err(Refused { undecided: Some(Box::new(armed.clone())), ..refused });
            }
        }
    }
}

/// The same, then looks how the new versions fare.
pub async fn swap_and_watch(lives: &Lives, order: Order, watch: Option<Duration>) -> Result<Value, Refused> {
    let watching = watch.filter(|_| !order.dry_run).map(|wait| (Watch::begin(lives, &order.changes), wait));
    let mut told = json!(swap(lives, order).await?);
    if let Some((watching, wait)) = watching
        && let Some(TakenBack { reason, .. }) = watching.look(lives, wait).await
    {
        told["rolled_back"] = reason.into();
    }
    Ok(told)
}

/// A candidate beside what runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// What the candidate is.
    pub changes: Vec<Asked>,
    /// What it is there for.
    pub kind: Kind,
    /// Columns whose values say on which side a row is.
    #[serde(default)]
    pub by: Vec<String>,
    /// Shares of a canary, percent, one after the other.
    #[serde(default)]
    pub percent: Vec<f64>,
    /// How long each of them lasts, or the shadow.
    pub seconds: u64,
    /// From when on the candidate goes.
    #[serde(default)]
    pub allowed: Allowed,
    /// At the end it takes the place of what runs.
    #[serde(default)]
    pub promote: bool,
}

impl Beside {
    /// Its shares, one after the other, in parts of [`ALL`].
    fn steps(&self) -> Result<Vec<u32>, Refused> {
        if self.kind == Kind::Shadow {
            return Ok(vec![ALL]);
        }
        let steps: Vec<u32> = self.percent.iter().map(|percent| (percent * f64::from(ALL) / 100.0).round() as u32).collect();
        if steps.is_empty() || !steps.is_sorted() || steps.iter().any(|step| *step == 0 || *step > ALL) {
            return Err(Refused::new(
                "the shares of a canary must be between 0.01 and 100 percent and must not fall",
                "say for example --percent 1,10,50",
            ));
        }
        Ok(steps)
    }
}

/// Runs a candidate beside what runs, share by share; ends it when it is worse than is allowed, else promotes it if that is wanted. Gives what was seen.
pub async fn beside(lives: &Lives, wanted: Beside) -> Result<Value, Refused> {
    let candidate = Candidate::begin(lives, wanted).await?;
    let (mut told, reason) = candidate.watch().await;
    if reason.is_none() && candidate.wanted.promote {
        told["promoted"] = json!(candidate.promote().await?);
    }
    Ok(told)
}

/// A candidate that works beside what runs. It goes when this is dropped.
pub struct Candidate<'a> {
    lives: &'a Lives,
    life: Life,
    experiment: Arc<Experiment>,
    trials: Vec<Trial>,
    /// Its shares, one after the other.
    steps: Vec<u32>,
    wanted: Beside,
}

impl Drop for Candidate<'_> {
    fn drop(&mut self) {
        self.experiment.end(None);
    }
}

impl Candidate<'_> {
    /// Puts it beside what runs.
    pub async fn begin(lives: &Lives, wanted: Beside) -> Result<Candidate<'_>, Refused> {
        let steps = wanted.steps()?;
        let life = running(lives)?;
        make_left_over(lives, &life).await;
        let experiment = Arc::new(Experiment::new(wanted.kind, wanted.by.clone(), steps[0]));
        let mut candidate = Candidate { lives, life, experiment, trials: Vec::new(), steps, wanted };
        let (swapper, _) = swaps(&candidate.life)?;
        candidate.trials = swapper.begin(loaded(&candidate.life, &candidate.wanted.changes).await?, candidate.experiment.clone()).await?;
        Ok(candidate)
    }

    /// Looks at it share by share. Gives what was seen, and why it has gone if it was worse than is allowed.
    pub async fn watch(&self) -> (Value, Option<String>) {
        let mut told = json!({"kind": self.wanted.kind, "trials": self.trials, "allowed": self.wanted.allowed});
        let mut reason = None;
        for share in &self.steps {
            self.experiment.raise(*share);
            reason = self.look(Duration::from_secs(self.wanted.seconds)).await;
            if reason.is_some() {
                break;
            }
        }
        let figures = self.experiment.figures();
        told["slower"] = figures.slower().into();
        told["figures"] = json!(figures);
        if let Some(reason) = &reason {
            self.experiment.end(None);
            tracing::warn!(reason, "a candidate was taken back");
            told["rolled_back"] = reason.clone().into();
        }
        (told, reason)
    }

    async fn look(&self, wait: Duration) -> Option<String> {
        let mut looked = Duration::ZERO;
        while looked < wait {
            tokio::time::sleep(LOOK).await;
            looked += LOOK;
            if self.life.is_over() {
                return Some("the life of the pipeline that it was in has ended; the version that runs goes on".into());
            }
            if let Some(reason) = self.experiment.figures().verdict(&self.wanted.allowed) {
                return Some(reason);
            }
        }
        None
    }

    /// Makes it what runs.
    pub async fn promote(&self) -> Result<Swapped, Refused> {
        let wanted = Wanted { experiment: Some(self.experiment.clone()), ..loaded(&self.life, &self.wanted.changes).await? };
        let (swapper, _) = swaps(&self.life)?;
        match swapper.swap(wanted).await {
            Err(Refused { undecided: Some(armed), .. }) => outcome(self.lives, self.life.clone(), &armed).await,
            done => done,
        }
    }
}

/// Goes back to what a transform was before.
pub async fn roll_back(lives: &Lives, transform: &str) -> Result<Swapped, Refused> {
    let back = way_back(lives, transform).await?;
    swap(lives, Order { changes: vec![back], ..Order::default() }).await
}

/// What a transform was before it became what it is.
pub async fn way_back(lives: &Lives, transform: &str) -> Result<Asked, Refused> {
    let life = running(lives)?;
    make_left_over(lives, &life).await;
    let refused = |message: String| Refused::new(message, "look with `pelton plugin history` at what runs");
    let (swapper, base) = swaps(&life)?;
    let made = swapper.history().await.map_err(|failure| refused(failure.to_string()))?;
    base.way_back(transform, &swapper.versions().await, &made).map_err(|error| refused(error.to_string()))
}

fn running(lives: &Lives) -> Result<Life, Refused> {
    lives.now().ok_or_else(|| Refused::new("the pipeline does not run yet, or not any more", "try again when it runs"))
}

/// Makes the swap that was armed when an earlier life ended, or gives it up where that life failed because of it. Does nothing where nothing is left over.
pub async fn make_left_over(lives: &Lives, life: &Life) {
    let Ok((swapper, _)) = swaps(life) else { return };
    let _alone = lives.looking_after.lock().await;
    let armed = match swapper.left_over().await {
        Ok(None) => return,
        Ok(Some(armed)) => armed,
        Err(failure) => return tracing::warn!(%failure, "it is not known whether a swap was under way"),
    };
    let names: Vec<&str> = armed.changes.iter().map(|change| change.transform.as_str()).collect();
    let names = names.join(", ");
    let is_to_blame = |fault: &&Fault| armed.changes.iter().any(|change| transform_in(life, &change.transform) == fault.transform);
    let refused = if let Some(fault) = life.at_fault.as_ref().filter(is_to_blame) {
        let message = format!("the pipeline failed because of the swap, which is taken back: {}", fault.message);
        Refused::new(message, "mend the new version; the old one goes on")
    } else {
        let changes = armed.changes.iter().map(|change| Asked::to(&change.transform, &change.to)).collect();
        match swap_in(life, &Order { changes, ..Order::default() }).await {
            Ok(swapped) => return tracing::info!(transforms = names, epoch = swapped.epoch, "the swap that was under way is made"),
            // Another one is there to look after it.
            Err(_) if life.is_over() => return,
            Err(refused) => refused,
        }
    };
    tracing::warn!(transforms = names, "the swap that was under way is given up: {refused}");
    lives.give_up(armed, refused);
    if let Err(failure) = swapper.give_up().await {
        tracing::warn!(%failure, "that is not written down yet");
    }
}

/// How many rows a transform has taken and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fared {
    rows: u64,
    errors: u64,
}

impl Fared {
    fn of(life: &Life, transform: &str) -> Fared {
        let transform = transform_in(life, transform);
        let node = life.progress.nodes.iter().find(|node| node.name == transform);
        node.map_or_else(Fared::default, |node| Fared { rows: node.rows_in.load(Relaxed), errors: node.errors.load(Relaxed) })
    }

    fn since(self, before: Fared) -> Fared {
        Fared { rows: self.rows.saturating_sub(before.rows), errors: self.errors.saturating_sub(before.errors) }
    }

    fn share(self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.errors as f64 / self.rows as f64 }
    }

    /// Why the new version is worse, if it is.
    fn worse_than(self, before: Fared) -> Option<String> {
        let (now, then) = (self.share(), before.share());
        (self.rows >= LEAST_ROWS && now > then * TIMES && now > then + SHARE).then(|| {
            format!(
                "it refuses {:.1} % of its rows ({} of {}), the old version refused {:.1} %",
                now * 100.0,
                self.errors,
                self.rows,
                then * 100.0
            )
        })
    }
}

/// A swap that is not to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// What is worse than before.
    pub reason: String,
    /// Whether the old version runs again.
    pub is_back: bool,
}

/// A swap that is looked at.
pub struct Watch {
    /// By transform: how it fared with the old version.
    before: Vec<(String, Fared)>,
}

impl Watch {
    /// Before the swap.
    pub fn begin(lives: &Lives, changes: &[Asked]) -> Watch {
        let life = lives.now();
        let fared = |transform: &str| life.as_ref().map_or_else(Fared::default, |life| Fared::of(life, transform));
        Watch { before: changes.iter().map(|asked| (asked.transform.clone(), fared(&asked.transform))).collect() }
    }

    /// Looks for so long; goes back where the new version is worse, and says why.
    pub async fn look(self, lives: &Lives, wait: Duration) -> Option<TakenBack> {
        let mut life = lives.now()?;
        let mut at_swap: Vec<Fared> = self.before.iter().map(|(transform, _)| Fared::of(&life, transform)).collect();
        let mut looked = Duration::ZERO;
        while looked < wait {
            tokio::time::sleep(LOOK).await;
            looked += LOOK;
            let next = lives.now()?;
            if !next.is(&life) {
                // It counts from its start.
                at_swap.fill(Fared::default());
                life = next;
            }
            for ((transform, before), at) in self.before.iter().zip(&at_swap) {
                let Some(reason) = Fared::of(&life, transform).since(*at).worse_than(*before) else { continue };
                let reason = format!("`{transform}`: {reason}");
                tracing::warn!(reason, "a swap is taken back");
                return Some(match self.go_back(lives, &life).await {
                    Ok(_) => TakenBack { reason, is_back: true },
                    Err(refused) => TakenBack { reason: format!("{reason}; but it cannot go back: {refused}"), is_back: false },
                });
            }
        }
        None
    }

    async fn go_back(&self, lives: &Lives, life: &Life) -> Result<Swapped, Refused> {
        let made = swaps(life)?.0.history().await.unwrap_or_default();
        let last: &[Change] = made.last().map_or(&[], |made| &made.changes);
        let changes = last.iter().map(|change| Asked::to(&change.transform, &change.from)).collect();
        swap(lives, Order { changes, ..Order::default() }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_worse_if_it_refuses_twice_as_much_and_a_hundredth_more() {
        let fared = |rows, errors| Fared { rows, errors };
        assert_eq!(fared(99, 99).worse_than(fared(1_000, 0)), None, "too few rows");
        assert_eq!(fared(1_000, 10).worse_than(fared(1_000, 0)), None, "a hundredth");
        assert!(fared(1_000, 11).worse_than(fared(1_000, 0)).is_some());
        assert_eq!(fared(1_000, 200).worse_than(fared(1_000, 100)), None, "twice");
        assert!(fared(1_000, 201).worse_than(fared(1_000, 100)).unwrap().starts_with("it refuses 20.1 % of its rows (201 of 1000)"));
    }
}
