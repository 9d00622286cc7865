//! Whom a pipeline, or a host, trusts to make plugins.
//!
//! A signature covers a plugin's name, version and digest, so that a key that may sign `parse-*` cannot pass its work off as another's. What is
//! signed and whether a signature is right is found elsewhere; here is only what follows from it.

use crate::grants::Kind;
use std::fmt;

/// `options.pelton.trust` of a pipeline file, or the policy of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Refuse what no key of the list vouches for; otherwise say so and go on.
    pub required: bool,
    /// Who may sign what.
    pub keys: Vec<TrustedKey>,
}

/// A key that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// For messages.
    pub name: String,
    /// The public key, as `ed25519:` and 32 bytes in base64.
    pub key: String,
    /// Names of plugins that it may sign, with `*` for any part of a name.
    pub plugins: Vec<String>,
    /// What plugins by its signature may be granted; `None`: anything.
    pub grants: Option<Vec<Kind>>,
}

/// What is known of a plugin before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Name that the signatures are for; the plugin must have it.
    pub name: &'a str,
    /// Keys whose signatures are right.
    pub signers: &'a [String],
    /// Keys whose signatures are wrong.
    pub forged: &'a [String],
    /// What the pipeline grants it.
    pub grants: &'a [Kind],
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This key vouches for it.
    Trusted(String),
    /// Nobody does, and the policy lets it pass.
    Doubtful(Doubt),
    /// It must not be loaded.
    Refused(Doubt),
}

/// Why a plugin is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It has no signature.
    Unsigned,
    /// A signature of this key is not one of this plugin.
    Forged(String),
    /// Its keys are not in the list.
    UnknownKeys(Vec<String>),
    /// This key may not sign plugins of this name.
    NotItsName {
        /// Name of the key.
        key: String,
        /// Name of the plugin.
        plugin: String,
        /// Names that it may sign.
        may: Vec<String>,
    },
    /// Plugins by the signature of this key may not be granted this.
    NotItsGrant {
        /// Name of the key.
        key: String,
        /// What the pipeline grants.
        grant: Kind,
        /// What may be granted.
        may: Vec<Kind>,
    },
}

/// Whether a plugin may be loaded.
pub fn judge(policy: &Policy, facts: &Facts<'_>) -> Verdict {
    let trusted = |key: &&String| policy.keys.iter().find(|trusted| trusted.key == **key);
    // A wrong signature in the name of a trusted key is no accident of nobody's; it is refused even where nothing is required.
    if let Some(forged) = facts.forged.iter().find_map(|key| trusted(&key)) {
        return Verdict::Refused(Doubt::Forged(forged.name.clone()));
    }
    let known: Vec<&TrustedKey> = facts.signers.iter().filter_map(|key| trusted(&key)).collect();
    let may = |key: &&&TrustedKey| key.plugins.iter().any(|pattern| matches(pattern, facts.name));
    let beyond = |key: &TrustedKey| {
        let may = key.grants.as_ref()?;
        facts.grants.iter().find(|grant| !may.contains(grant)).map(|grant| (*grant, may.clone()))
    };
    if let Some(key) = known.iter().filter(may).find(|key| beyond(key).is_none()) {
        return Verdict::Trusted(key.name.clone());
    }
    let doubt = match (known.iter().find(may), known.first()) {
        (Some(key), _) => {
            let (grant, may) = beyond(key).expect("a key without one was taken above");
            // What a pipeline grants is no accident: nobody's word makes it more.
            return Verdict::Refused(Doubt::NotItsGrant { key: key.name.clone(), grant, may });
        }
        (None, Some(key)) => Doubt::NotItsName { key: key.name.clone(), plugin: facts.name.into(), may: key.plugins.clone() },
        (None, None) if facts.signers.is_empty() => Doubt::Unsigned,
        (None, None) => Doubt::UnknownKeys(facts.signers.to_vec()),
    };
    if policy.required { Verdict::Refused(doubt) } else { Verdict::Doubtful(doubt) }
}

/// Whether a name fits a pattern, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, &name[at..]))
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Unsigned => f.write_str("it is not signed; sign it with `pelton plugin sign`"),
            Doubt::Forged(key) => {
                write!(
                    f,
                    "a signature by `{key}` does not fit it: the component was changed after it was signed, or the signature is forged. Get both again"
                )
            }
            Doubt::UnknownKeys(keys) => {
                write!(f, "it is signed by {}, which its `keys` do not name; add the key there if you trust it", keys.join(", "))
            }
            Doubt::NotItsName { key, plugin, may } => write!(
                f,
                "it is signed by `{key}`, which may sign {} and not `{plugin}`; add the name to `plugins` of that key if it should",
                may.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
            Doubt::NotItsGrant { key, grant, may } => write!(
                f,
                "it is granted `{grant}`, but a plugin signed by `{key}` may be granted {}; take the grant away, or add it to `grants` of that key",
                if may.is_empty() { "nothing".into() } else { may.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ") }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, plugins: &[&str]) -> TrustedKey {
        let plugins = plugins.iter().map(|name| name.to_string()).collect();
        TrustedKey { name: name.into(), key: format!("ed25519:{name}"), plugins, grants: None }
    }

    fn check(required: bool, signers: &[&str], forged: &[&str], expected: &str) {
        let policy = Policy { required, keys: vec![key("release", &["*"]), key("team", &["parse-*", "geo"])] };
        let keys = |names: &[&str]| names.iter().map(|name| format!("ed25519:{name}")).collect::<Vec<_>>();
        let verdict = judge(&policy, &Facts { name: "enrich", signers: &keys(signers), forged: &keys(forged), grants: &[] });
        assert!(format!("{verdict:?}").starts_with(expected), "{signers:?} {forged:?}: {verdict:?}");
    }

    #[test]
    fn a_plugin_passes_by_a_key_that_may_sign_its_name() {
        check(true, &["release"], &[], "Trusted(\"release\")");
        check(true, &["team", "release"], &[], "Trusted(\"release\")");
        check(true, &["team"], &[], "Refused(NotItsName");
        check(true, &["stranger"], &[], "Refused(UnknownKeys");
        check(true, &[], &[], "Refused(Unsigned)");
        check(true, &["release"], &["stranger"], "Trusted");
        check(true, &["release"], &["team"], "Refused(Forged(\"team\"))");
        check(false, &[], &[], "Doubtful(Unsigned)");
        check(false, &[], &["release"], "Refused(Forged(\"release\"))");
    }

    #[test]
    fn a_plugin_is_granted_no_more_than_its_key_may_vouch_for() {
        let team = TrustedKey { grants: Some(vec![Kind::WallClock]), ..key("team", &["*"]) };
        let check = |keys: &[TrustedKey], grants: &[Kind], expected: &str| {
            let policy = Policy { required: false, keys: keys.to_vec() };
            let signers: Vec<String> = keys.iter().map(|key| key.key.clone()).collect();
            let verdict = judge(&policy, &Facts { name: "enrich", signers: &signers, forged: &[], grants });
            assert!(format!("{verdict:?}").starts_with(expected), "{verdict:?}");
        };
        check(std::slice::from_ref(&team), &[Kind::WallClock], "Trusted(\"team\")");
        check(std::slice::from_ref(&team), &[Kind::WallClock, Kind::Http], "Refused(NotItsGrant { key: \"team\", grant: Http");
        check(&[team, key("release", &["*"])], &[Kind::Http], "Trusted(\"release\")");
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name, fits) in [
            ("parse-*", "parse-log", true),
            ("parse-*", "parse", false),
            ("*", "", true),
            ("*-log", "parse-log", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("geo", "geo2", false),
            ("é*", "éx", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
