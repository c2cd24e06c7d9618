//! The files that a template is made of: itself, what its header names, and what it includes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::front;

/// The files of a template, by the names that it knows them by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// The name of the template itself.
    pub main: String,
    /// All files.
    pub bytes: BTreeMap<String, Arc<[u8]>>,
}

impl Files {
    /// The bytes of a file.
    pub fn get(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.bytes.get(name)
    }

    /// A file's text; `None` if it is not there or not UTF-8. A byte order mark is no part of it.
    pub fn text(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes.get(name)?).ok()?;
        Some(text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}

/// Fields whose value is the name of a file.
pub(super) const FILE_FIELDS: [&str; 5] = ["Text", "Html", "Layout", "Inline", "Attach"];

/// The files that the file called `name` refers to. `is_main`: it is the template itself, with a header.
pub fn references(name: &str, bytes: &[u8], is_main: bool) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if is_main && let Ok(front) = front::split(name, text) {
        for field in &front.fields {
            if FILE_FIELDS
                .iter()
                .any(|known| field.name.eq_ignore_ascii_case(known))
            {
                found.push(field.value.clone());
            }
        }
    }
    found.extend(included(text));
    found
}

/// The first file that a text of the template includes and that is not there: who includes it, in which line, and its name. What
/// may be missing, or is one of several, is not looked for.
pub(super) fn missing(files: &Files, carried: &[&str]) -> Option<(String, usize, String)> {
    let texts = files.bytes.iter();
    let texts = texts.filter(|(name, _)| !carried.contains(&name.as_str()));
    for (file, _) in texts {
        let text = files.text(file).unwrap_or_default();
        for (at, tag) in loading_tags(text) {
            if tag.contains("ignore missing") || tag.contains('[') {
                continue;
            }
            let gone = quoted(tag).into_iter().next();
            if let Some(name) = gone.filter(|name| files.get(name).is_none()) {
                let line = 1 + text[..at].matches('\n').count();
                return Some((file.clone(), line, name));
            }
        }
    }
    None
}

/// The names in `{% include "name" %}` and its like.
fn included(text: &str) -> Vec<String> {
    let tags = loading_tags(text).into_iter();
    tags.flat_map(|(_, tag)| quoted(tag)).collect()
}

/// The tags that load other files, and where they begin.
fn loading_tags(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("{%") {
        rest = &rest[at + 2..];
        let end = rest.find("%}").unwrap_or(rest.len());
        let tag = rest[..end].trim_start_matches(['-', '+']).trim_start();
        let is_loading = ["include", "extends", "import", "from"].iter().any(|word| {
            tag.strip_prefix(word)
                .is_some_and(|tail| tail.starts_with([' ', '\t', '\n', '"', '\'', '[']))
        });
        if is_loading {
            found.push((text.len() - rest.len(), tag));
        }
        rest = &rest[end..];
    }
    found
}

fn quoted(tag: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = tag;
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = rest[at..].chars().next().unwrap_or('"');
        let inner = &rest[at + 1..];
        let Some(end) = inner.find(quote) else { break };
        found.push(inner[..end].to_owned());
        rest = &inner[end + 1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_fields_and_by_includes() {
        let text = b"From: a@b\nText: t.txt\nattach: a b.pdf\n\n{% include 'x.html' %} {%- extends \"y\" -%} {% if a == \"no\" %}";
        assert_eq!(
            references("t", text, true),
            ["t.txt", "a b.pdf", "x.html", "y"]
        );
        assert_eq!(references("t", text, false), ["x.html", "y"]);
        assert_eq!(references("t", b"\xff{% include 'x' %}", true), [""; 0]);
    }
}
