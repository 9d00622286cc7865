//! What a reference means: the name of an input of the composite around it, of a transform beside it, a type that only one
//! transform beside it has, or one of these and an output, `Name.output`.

use super::{Connector, Target};
use crate::draft::Edge;
use crate::report::suggestion;
use crate::source::Mark;
use crate::syntax::Reference;

impl Connector<'_, '_, '_, '_> {
    /// The main output of an item, or why there is none.
    pub(super) fn main_of(&self, item: usize, mark: Mark) -> Result<Edge, String> {
        let label = self.items[item].spec.label();
        let edge = |draft, output: &str| Edge { draft, output: output.to_string(), mark };
        let several = |names: Vec<&str>| {
            let names: Vec<String> = names.iter().map(|name| format!("`{label}.{name}`")).collect();
            format!("`{label}` has several outputs: read {}", names.join(" or "))
        };
        match &self.items[item].target {
            Target::Leaf { main: Some(main), .. } => Ok(edge(*main, "")),
            Target::Leaf { draft, .. } => match self.drafts[*draft].outputs.as_slice() {
                _ if self.drafts[*draft].open => Ok(edge(*draft, "")),
                [] => Err(format!("`{label}` has no output")),
                [only] => Ok(edge(*draft, only)),
                names => Err(several(names.iter().map(String::as_str).collect())),
            },
            Target::Composite { outputs, .. } => match outputs.as_slice() {
                [] => Err(format!("`{label}` has no output: say which with `output`")),
                [(_, only)] => Ok(edge(*only, "")),
                names => Err(several(names.iter().map(|(name, _)| name.as_str()).collect())),
            },
        }
    }

    /// A named output of an item, or why there is none.
    fn output_of(&self, item: usize, output: &str, mark: Mark) -> Result<Edge, (String, Option<String>)> {
        let label = self.items[item].spec.label();
        let edge = |draft, output: &str| Edge { draft, output: output.to_string(), mark };
        let names: Vec<&str> = match &self.items[item].target {
            Target::Leaf { draft, main, errors, .. } => {
                let draft_id = *draft;
                let draft = &self.drafts[draft_id];
                let error = draft.error_output.as_ref().map(|errors| &errors.name);
                if let (Some(errors), true) = (errors, error.is_some_and(|name| name == output)) {
                    return Ok(edge(*errors, ""));
                }
                if draft.open || draft.outputs.iter().chain(error).any(|name| name == output) {
                    return Ok(edge(draft_id, output));
                }
                // Beam's name of the other output where there is one for errors.
                if let (Some(_), Some(main), "good") = (error, main, output) {
                    return Ok(edge(*main, ""));
                }
                draft.outputs.iter().chain(error).map(String::as_str).collect()
            }
            Target::Composite { outputs, .. } => {
                if let Some((_, draft)) = outputs.iter().find(|(name, _)| name == output) {
                    return Ok(edge(*draft, ""));
                }
                outputs.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty()).collect()
            }
        };
        Err((format!("`{label}` has no output `{output}`"), suggestion(output, names)))
    }

    pub(super) fn resolve(&mut self, reference: &Reference, scope: usize) -> Option<Edge> {
        let Reference { text, mark } = reference;
        if let Some((_, draft)) = self.scopes[scope].ports.iter().find(|(tag, _)| tag == text) {
            return Some(Edge { draft: *draft, output: String::new(), mark: *mark });
        }
        let found = match self.find(text, scope) {
            Found::One(item) => self.main_of(item, *mark).map_err(|message| (message, None)),
            Found::Several(lines) => Err((format!("`{text}` could be any of several transforms"), Some(lines))),
            Found::Nothing => match text.rsplit_once('.').map(|(name, output)| (self.find(name, scope), output)) {
                Some((Found::One(item), output)) => {
                    let found = self.output_of(item, output, *mark);
                    if let (Err(_), Target::Leaf { draft, .. }) = (&found, &self.items[item].target) {
                        self.excused.insert(*draft);
                    }
                    found
                }
                Some((Found::Several(lines), _)) => Err((format!("`{text}` could mean several transforms"), Some(lines))),
                _ => Err((format!("there is no transform `{text}` here"), self.help_with_name(text, scope))),
            },
        };
        found.map_err(|(message, help)| self.report.error_with_help(*mark, message, help)).ok()
    }

    /// The transform that a name means, not one of its outputs.
    pub(super) fn item(&mut self, reference: &Reference, scope: usize) -> Option<usize> {
        let Reference { text, mark } = reference;
        let (message, help) = match self.find(text, scope) {
            Found::One(item) => return Some(item),
            Found::Several(lines) => (format!("`{text}` could be any of several transforms"), Some(lines)),
            Found::Nothing => (format!("there is no transform `{text}` here"), self.help_with_name(text, scope)),
        };
        self.report.error_with_help(*mark, message, help);
        None
    }

    /// By name first, then by type if only one has it.
    fn find(&self, name: &str, scope: usize) -> Found {
        let items = &self.scopes[scope].items;
        let named = items.iter().find(|&&item| self.items[item].spec.name.as_ref().is_some_and(|(own, _)| own == name));
        if let Some(item) = named {
            return Found::One(*item);
        }
        // Beam calls a chain without a name `Chain`.
        let is = |kind: &str| kind == name || (kind == "chain" && name == "Chain");
        let typed: Vec<usize> = items.iter().copied().filter(|&item| is(&self.items[item].spec.kind)).collect();
        match typed.as_slice() {
            [] => Found::Nothing,
            [item] => Found::One(*item),
            several => {
                let line = |item: &usize| self.report.place(self.items[*item].spec.mark).line.to_string();
                let lines: Vec<String> = several.iter().map(line).collect();
                Found::Several(format!("give them names; they are in lines {}", lines.join(", ")))
            }
        }
    }

    fn help_with_name(&self, wrong: &str, scope: usize) -> Option<String> {
        let mut outer = self.scopes[scope].parent;
        while let Some(parent) = outer {
            if !matches!(self.find(wrong, parent), Found::Nothing) {
                return Some(format!("`{wrong}` is outside of this composite: hand it in with `input` of the composite"));
            }
            outer = self.scopes[parent].parent;
        }
        let scope = &self.scopes[scope];
        let names = scope.items.iter().map(|&item| self.items[item].spec.label()).filter(|name| !name.is_empty());
        suggestion(wrong, names.chain(scope.ports.iter().map(|(tag, _)| tag.as_str())))
    }
}

enum Found {
    One(usize),
    /// With a hint where they are.
    Several(String),
    Nothing,
}
