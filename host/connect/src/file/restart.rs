//! What outlives the process when files are read: how the work was divided, and how far each reader has come.
//!
//! The *plan* names files and where they were cut, because their lengths, what a pattern matches and the number of readers
//! change from start to start; chunks are numbered in its order. A file may have grown since: nothing beyond the last chunk's
//! end was promised. One that is shorter than it was, or that begins with other bytes, is another file, and reading does not go on.
//!
//! A reader says which chunks it has finished and where it is in the one that it reads. What an earlier life had begun and
//! nobody has claimed again is repeated by the first reader for ever; of two places in a chunk the later one counts, and a
//! finished chunk counts before any place. So it does not matter in which order readers meet a barrier and claim chunks.

use super::find::FoundFile;
use crate::ConnectError;
use pelton_core::SplitPosition;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// First bytes of a file that are remembered: a header and some rows, read in one go.
const HEAD_BYTES: u64 = 4 << 10;

/// Chunks of a plan that is believed: of the shortest that files are cut into, 128 TiB.
const MAX_CHUNKS: u64 = 1 << 24;

/// How files were divided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of their chunks.
    pub files: Vec<PlannedFile>,
    /// The columns that were found by looking into the files; `None` if they were given.
    pub columns: Option<String>,
}

/// A file as it was when the work was divided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub length: u64,
    /// xxh3-64 of its first bytes.
    head: u64,
    /// Bytes of each chunk but the last; 0 if it is not divided.
    pub chunk_bytes: u64,
    /// Its chunks.
    pub chunks: u64,
}

/// Where reading of a chunk goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Lines and CSV: offset in the (decompressed) file of a record's start. Parquet, Avro: number of a row.
    pub at: u64,
    /// CSV: where the file's header ends.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub header: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// How far chunks have come, by number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Chunks that are finished: first and last number of each run of them.
    finished: Vec<(usize, usize)>,
    /// Those that are not.
    at: BTreeMap<usize, Place>,
}

/// How far one reader has come.
#[derive(Debug)]
pub struct Progress {
    reader: usize,
    /// What this reader finished, and what an earlier life had reached.
    reached: Reached,
    current: Option<(usize, Place)>,
}

impl PlannedFile {
    /// Remembers a file. Blocks.
    pub fn of(file: &FoundFile, chunk_bytes: u64, chunks: u64) -> Result<PlannedFile, ConnectError> {
        let head = head(&file.path, file.length).map_err(|error| ConnectError::of_file("read", &file.path, &error))?;
        Ok(PlannedFile { path: file.path.clone(), length: file.length, head, chunk_bytes, chunks })
    }

    /// Whether it is still the same file, grown at most. Blocks.
    fn check(&self) -> Result<(), ConnectError> {
        let changed = |how: String| {
            ConnectError::user(
                format!("cannot go on reading {}: {how}", self.path.display()),
                "put the file back as it was, or begin anew with an empty state",
            )
        };
        let length = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(changed("it is no longer there".into())),
            Err(error) => return Err(ConnectError::of_file("read", &self.path, &error)),
        };
        if length < self.length {
            return Err(changed(format!("it had {} bytes when the pipeline began, and has {length} now", self.length)));
        }
        match head(&self.path, self.length) {
            Ok(head) if head == self.head => Ok(()),
            Ok(_) => Err(changed("it does not begin as it did when the pipeline began".into())),
            Err(error) => Err(ConnectError::of_file("read", &self.path, &error)),
        }
    }
}

/// A file of no length may be a pipe, from which nothing is taken here.
fn head(path: &Path, length: u64) -> std::io::Result<u64> {
    let mut bytes = Vec::new();
    if length > 0 {
        File::open(path)?.take(length.min(HEAD_BYTES)).read_to_end(&mut bytes)?;
    }
    Ok(xxhash_rust::xxh3::xxh3_64(&bytes))
}

impl Plan {
    /// The plan in words that can be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A path that is not UTF-8 cannot be written: then reading cannot go on, and `from_bytes` says so.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What `to_bytes` made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan, ConnectError> {
        let unreadable = |why: String| {
            ConnectError::user(
                format!("cannot go on reading files: how they were divided is not readable ({why})"),
                "begin anew with an empty state",
            )
        };
        let plan: Plan = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        let chunks = plan.files.iter().map(|file| file.chunks).fold(0, u64::saturating_add);
        if chunks > MAX_CHUNKS {
            return Err(unreadable(format!("{chunks} chunks are more than {MAX_CHUNKS}")));
        }
        Ok(plan)
    }

    /// Numbers of the chunks of each file.
    fn numbers(&self) -> impl Iterator<Item = (&PlannedFile, std::ops::Range<usize>)> {
        let mut next = 0;
        self.files.iter().map(move |file| {
            let first = next;
            next += file.chunks as usize;
            (file, first..next)
        })
    }

    /// Whether each file that is still to be read is the one that it was, and as long as `reached` says. Blocks.
    pub fn check(&self, reached: &Reached) -> Result<(), ConnectError> {
        for (file, mut numbers) in self.numbers() {
            if !numbers.all(|number| reached.is_finished(number)) {
                file.check()?;
            }
        }
        Ok(())
    }
}

impl Reached {
    /// What all readers together had said.
    pub fn of(positions: &[SplitPosition]) -> Result<Reached, ConnectError> {
        let mut all = Reached::default();
        for position in positions {
            let one: Reached = serde_json::from_slice(&position.position)
                .map_err(|error| ConnectError::internal(format!("the position of {} is not readable: {error}", position.split)))?;
            all.finish_runs(one.finished);
            for (number, place) in one.at {
                all.reach(number, place);
            }
        }
        all.drop_finished();
        Ok(all)
    }

    /// Where a chunk goes on; `None`: at its beginning.
    pub fn place(&self, number: usize) -> Option<Place> {
        self.at.get(&number).copied()
    }

    /// Nothing of a chunk is left.
    pub fn is_finished(&self, number: usize) -> bool {
        let after = self.finished.partition_point(|(first, _)| *first <= number);
        after > 0 && self.finished[after - 1].1 >= number
    }

    fn reach(&mut self, number: usize, place: Place) {
        let known = self.at.entry(number).or_insert(place);
        *known = (*known).max(place);
    }

    fn finish(&mut self, number: usize) {
        if self.is_finished(number) {
            return;
        }
        let after = self.finished.partition_point(|(first, _)| *first <= number);
        let joins_before = after > 0 && self.finished[after - 1].1 + 1 == number;
        let joins_next = self.finished.get(after).is_some_and(|(first, _)| *first == number + 1);
        match (joins_before, joins_next) {
            (true, true) => self.finished[after - 1].1 = self.finished.remove(after).1,
            (true, false) => self.finished[after - 1].1 = number,
            (false, true) => self.finished[after].0 = number,
            (false, false) => self.finished.insert(after, (number, number)),
        }
    }

    /// Takes as long as there are runs, however long they are: they may come from a file that somebody else has made.
    fn finish_runs(&mut self, runs: Vec<(usize, usize)>) {
        let mut all: Vec<(usize, usize)> = std::mem::take(&mut self.finished);
        all.extend(runs.into_iter().filter(|(first, last)| first <= last));
        all.sort_unstable();
        for (first, last) in all {
            match self.finished.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => self.finished.push((first, last)),
            }
        }
    }

    fn drop_finished(&mut self) {
        let at = std::mem::take(&mut self.at);
        self.at = at.into_iter().filter(|(number, _)| !self.is_finished(*number)).collect();
    }
}

impl Progress {
    /// Of reader number `reader`, the first of which speaks for the life before.
    pub fn new(reader: usize, earlier: &Reached) -> Progress {
        let reached = if reader == 0 { earlier.clone() } else { Reached::default() };
        Progress { reader, reached, current: None }
    }

    /// A batch was given, and reading goes on here.
    pub fn at(&mut self, chunk: usize, place: Place) {
        self.current = Some((chunk, place));
    }

    /// The last batch of a chunk was given.
    pub fn finish(&mut self, chunk: usize) {
        self.reached.finish(chunk);
        self.current = None;
    }

    /// What this reader has to say at a barrier.
    pub fn positions(&self) -> Vec<SplitPosition> {
        let mut reached = self.reached.clone();
        if let Some((chunk, place)) = self.current {
            reached.reach(chunk, place);
        }
        if reached == Reached::default() {
            return Vec::new();
        }
        let position = serde_json::to_vec(&reached).expect("numbers are JSON");
        vec![SplitPosition { split: format!("chunks of reader {}", self.reader), position }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_that_somebody_has_made_up_hold_nothing_up() {
        let position = |text: &str| SplitPosition { split: "chunks of reader 0".into(), position: text.as_bytes().to_vec() };
        let huge = format!("{{\"finished\": [[9, 8], [3, {}], [0, 1]], \"at\": {{}}}}", usize::MAX);
        let reached = Reached::of(&[position(&huge), position("{\"finished\": [[5, 6]], \"at\": {}}")]).unwrap();
        assert_eq!(reached.finished, [(0, 1), (3, usize::MAX)]);
        let plan = |chunks: u64| {
            format!("{{\"files\": [{{\"path\": \"a\", \"length\": 1, \"head\": 0, \"chunk_bytes\": 1, \"chunks\": {chunks}}}]}}")
        };
        assert!(Plan::from_bytes(plan(2).as_bytes()).is_ok());
        for chunks in [1 << 40, u64::MAX] {
            let error = Plan::from_bytes(plan(chunks).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("more than"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn runs_are_the_set_of_their_numbers(runs in proptest::collection::vec((0usize..40, 0usize..40), 0..20)) {
            let mut reached = Reached::default();
            let (first, rest) = runs.split_at(runs.len() / 2);
            reached.finish_runs(first.to_vec());
            reached.finish_runs(rest.to_vec());
            for number in 0..41 {
                prop_assert_eq!(reached.is_finished(number), runs.iter().any(|(first, last)| (*first..=*last).contains(&number)));
            }
            prop_assert!(reached.finished.windows(2).all(|runs| runs[0].1 + 1 < runs[1].0), "{:?}", reached);
        }

        #[test]
        fn finished_chunks_are_a_set(numbers in proptest::collection::vec(0usize..40, 0..60)) {
            let mut reached = Reached::default();
            numbers.iter().for_each(|number| reached.finish(*number));
            for number in 0..41 {
                prop_assert_eq!(reached.is_finished(number), numbers.contains(&number));
            }
            prop_assert!(reached.finished.windows(2).all(|runs| runs[0].1 + 1 < runs[1].0), "{:?}", reached);
        }
    }

    #[test]
    fn the_later_place_counts_and_a_finished_chunk_counts_before_any() {
        let place = |at| Place { at, header: 0 };
        let mut earlier = Progress::new(0, &Reached::default());
        earlier.at(4, place(10));
        let earlier = Reached::of(&earlier.positions()).unwrap();
        // The first reader repeats what nobody has claimed; another has claimed it, or finished it.
        let mut readers = [Progress::new(0, &earlier), Progress::new(1, &earlier)];
        let all = |readers: &[Progress]| Reached::of(&readers.iter().flat_map(Progress::positions).collect::<Vec<_>>()).unwrap();
        assert_eq!(all(&readers).place(4), Some(place(10)));
        readers[1].at(4, place(30));
        assert_eq!(all(&readers).place(4), Some(place(30)));
        readers[1].finish(4);
        assert!(all(&readers).is_finished(4) && all(&readers).place(4).is_none());
    }
}
