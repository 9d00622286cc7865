//! Versions of plugins: which one a reference means, and which may come after which.
//!
//! A registry that was taken over, or a copy of it that is old, could offer a version with a known fault again under the name that a pipeline asks for.
//! So whoever takes plugins from registries remembers the highest version of each series, and takes no lower one unless told to.

pub use semver::Version;
use std::collections::BTreeMap;
use std::fmt;

/// No component is larger, wherever it is from. Those with a Python runtime have 20 MB.
pub const MAX_COMPONENT_BYTES: u64 = 256 << 20;

/// Which version of a plugin is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The highest release.
    Newest,
    /// The highest release of a series: `1`, or `1.2`.
    Series(u64, Option<u64>),
    /// This one.
    Exact(Version),
    /// The component with this digest.
    Digest(String),
}

impl Wanted {
    /// What stands behind the `:` of a reference.
    pub fn parse(text: &str) -> Result<Wanted, String> {
        let wrong = || format!("`{text}` is no version: write 1, 1.2, 1.2.3, 1.2.3-beta.1 or latest");
        if text == "latest" {
            return Ok(Wanted::Newest);
        }
        if let Ok(version) = Version::parse(text) {
            return if version.build.is_empty() { Ok(Wanted::Exact(version)) } else { Err(wrong()) };
        }
        let number = |text: &str| -> Option<u64> { text.parse().ok().filter(|number: &u64| number.to_string() == text) };
        let series = match text.split_once('.') {
            None => number(text).map(|major| Wanted::Series(major, None)),
            Some((major, minor)) => number(major).zip(number(minor)).map(|(major, minor)| Wanted::Series(major, Some(minor))),
        };
        series.ok_or_else(wrong)
    }

    /// Whether a version is one of those that are asked for. Of a digest the version is not known.
    fn takes(&self, version: &Version) -> bool {
        match self {
            Wanted::Newest | Wanted::Digest(_) => true,
            Wanted::Series(major, minor) => version.major == *major && minor.is_none_or(|minor| version.minor == minor),
            Wanted::Exact(exact) => version == exact,
        }
    }

    /// The version to take of those that there are. One before a release is only taken by its full name.
    pub fn choose<'v>(&self, versions: impl IntoIterator<Item = &'v Version>) -> Option<&'v Version> {
        let exact = matches!(self, Wanted::Exact(_));
        versions.into_iter().filter(|version| self.takes(version) && (exact || version.pre.is_empty())).max()
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Newest => f.write_str("latest"),
            Wanted::Series(major, None) => write!(f, "{major}"),
            Wanted::Series(major, Some(minor)) => write!(f, "{major}.{minor}"),
            Wanted::Exact(version) => write!(f, "{version}"),
            Wanted::Digest(digest) => f.write_str(digest),
        }
    }
}

/// The highest version seen of each series of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<(u64, u64), Version>);

impl Seen {
    /// Of versions that were seen.
    pub fn of(versions: impl IntoIterator<Item = Version>) -> Seen {
        let mut seen = Seen::default();
        versions.into_iter().for_each(|version| seen.note(&version));
        seen
    }

    /// The highest of each series.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.0.values()
    }

    /// This version was taken.
    pub fn note(&mut self, version: &Version) {
        let highest = self.0.entry((version.major, version.minor)).or_insert_with(|| version.clone());
        if version > highest {
            *highest = version.clone();
        }
    }

    /// The version that forbids to take this one. A series is compared with what was seen of that series alone, since two pipelines may
    /// use two of them; whoever names one version or digest is told of all that is newer.
    pub fn forbids(&self, wanted: &Wanted, version: &Version) -> Option<&Version> {
        let comparable = |seen: &&Version| match wanted {
            Wanted::Series(..) => wanted.takes(seen),
            Wanted::Newest | Wanted::Exact(_) | Wanted::Digest(_) => true,
        };
        self.0.values().filter(comparable).max().filter(|seen| *seen > version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(text: &str) -> Vec<Version> {
        text.split(' ').filter(|text| !text.is_empty()).map(|text| Version::parse(text).expect("a version")).collect()
    }

    #[test]
    fn a_reference_takes_the_highest_that_fits() {
        let all = versions("1.2.9 1.2.10 1.3.0 1.4.0-beta.1 2.0.0 0.9.0");
        for (wanted, chosen) in [
            ("latest", Some("2.0.0")),
            ("1", Some("1.3.0")),
            ("1.2", Some("1.2.10")),
            ("1.4", None),
            ("1.4.0-beta.1", Some("1.4.0-beta.1")),
            ("1.2.9", Some("1.2.9")),
            ("3", None),
        ] {
            let found = Wanted::parse(wanted).expect("a reference").choose(&all).map(Version::to_string);
            assert_eq!(found.as_deref(), chosen, "{wanted}");
        }
        for wrong in ["", "v1", "01", "1.02", "1.2.3+build", "1.x", "-1", "main", "1."] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn older_after_newer_is_forbidden_within_what_was_asked_for() {
        for (seen, wanted, version, forbidden) in [
            ("", "latest", "1.0.0", None),
            ("1.2.0", "latest", "1.2.0", None),
            ("1.2.0", "latest", "1.1.9", Some("1.2.0")),
            ("1.2.0 1.3.0", "1.2", "1.2.1", None),
            ("1.2.5 1.3.0", "1.2", "1.2.1", Some("1.2.5")),
            ("1.2.5 1.3.0", "1.2.7", "1.2.7", Some("1.3.0")),
            ("1.3.0", "1", "1.2.0", Some("1.3.0")),
            ("2.0.0", "1", "1.2.0", None),
            ("1.0.0", "1.0.0-rc.1", "1.0.0-rc.1", Some("1.0.0")),
        ] {
            let (wanted, version) = (Wanted::parse(wanted).expect("a reference"), Version::parse(version).expect("a version"));
            let found = Seen::of(versions(seen)).forbids(&wanted, &version).map(Version::to_string);
            assert_eq!(found.as_deref(), forbidden, "{seen} {wanted} {version}");
        }
        let digest = Wanted::Digest("sha256:00".into());
        assert!(Seen::of(versions("1.2.0")).forbids(&digest, &Version::new(1, 1, 0)).is_some());
    }
}
