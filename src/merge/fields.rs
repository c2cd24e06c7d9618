//! The header of a template: which fields hold addresses, which say where the message goes, and which are text.
//!
//! INVARIANT: a rendered field has no control character, so no value can begin a line of its own; the error names the column.

use mail_builder::headers::HeaderType;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text as TextHeader;
use minijinja::value::Value;

use super::address::{AddressField, Named};
use super::eml::decoded;
use super::engine::{Engine, Mode, OWN_NAMES, Text};
use super::error::{RowError, TemplateError};
use super::files::FILE_FIELDS;
use super::front::{Field, Front};
use super::row::Row;

/// Fields that hold addresses.
const ADDRESSES: [&str; 9] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "X-Envelope-To",
    "X-Envelope-From",
    "Return-Path",
];
/// Fields that are ours to write, and what is said instead.
const OURS: [&str; 4] = [
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
];
/// What somebody else's server wrote.
const TRACES: [&str; 6] = [
    "Received",
    "Delivered-To",
    "DKIM-Signature",
    "Authentication-Results",
    "Resent-To",
    "Content-Length",
];

/// What a field is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Addresses(AddressField),
    /// Unstructured text: encoded where it must be.
    Text(Text),
    /// URIs in angle brackets (RFC 2369), so many.
    Uris(Text, usize),
}

/// A field of the header.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) kind: Kind,
}

impl Compiled {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn texts(&self) -> Vec<&Text> {
        match &self.kind {
            Kind::Addresses(field) => field.texts().collect(),
            Kind::Text(text) | Kind::Uris(text, _) => vec![text],
        }
    }
}

/// Compiles the fields that stand in the message or say where it goes. `is_complete`: the template is a complete message.
pub(super) fn compile(
    engine: &mut Engine,
    file: &str,
    front: &Front<'_>,
    is_complete: bool,
) -> Result<Vec<Compiled>, TemplateError> {
    let mut compiled: Vec<Compiled> = Vec::new();
    for field in &front.fields {
        let is_in = |names: &[&str]| {
            names
                .iter()
                .any(|name| field.name.eq_ignore_ascii_case(name))
        };
        if is_in(&FILE_FIELDS) || (is_complete && (is_in(&OURS) || is_in(&TRACES))) {
            continue;
        }
        if is_in(&OURS) {
            let what = format!(
                "{} is written by mailer, as the parts ask for it",
                field.name
            );
            return Err(TemplateError::new(file, field.line, what).hint("leave it out"));
        }
        if is_in(&TRACES) {
            let what = format!("{} belongs to a message that has travelled", field.name);
            return Err(TemplateError::new(file, field.line, what).hint("leave it out"));
        }
        if let Some(first) = compiled.iter().find(|first| first.is(&field.name)) {
            let what = format!(
                "{} is there twice, first in line {}",
                field.name, first.line
            );
            return Err(TemplateError::new(file, field.line, what));
        }
        let value = decoded(&field.value);
        let field = Field {
            value,
            ..field.clone()
        };
        let kind = if is_in(&ADDRESSES) {
            Kind::Addresses(AddressField::compile(engine, file, &field)?)
        } else {
            let text = engine.add(Mode::Field, &field.name, (file, field.line), &field.value)?;
            if field.name.to_ascii_lowercase().starts_with("list-un")
                && !field.name.ends_with("Post")
            {
                let uris = field.value.matches('<').count();
                Kind::Uris(text, uris)
            } else {
                Kind::Text(text)
            }
        };
        compiled.push(Compiled {
            name: field.name,
            line: field.line,
            kind,
        });
    }
    Ok(compiled)
}

/// A field's text for a row.
///
/// # Errors
/// A control character in it, or brackets that a value brought along.
pub(super) fn render(
    engine: &Engine,
    field: &Compiled,
    text: &Text,
    scope: &Value,
    row: &Row,
) -> Result<String, RowError> {
    let value = engine.render(text, scope)?;
    let value = value.trim();
    if let Some(bad) = value.chars().find(|c| c.is_control()) {
        let what = format!("{bad:?} in the field {}", field.name);
        return Err(blamed(
            engine,
            &[text],
            row,
            |value| value.contains(bad),
            what,
        ));
    }
    if let Some(what) = unfit(field, value) {
        return Err(blamed(engine, &[text], row, |_| true, what));
    }
    if let Kind::Uris(_, uris) = &field.kind {
        let is_uri = |part: &str| {
            part.strip_prefix('<')
                .and_then(|rest| rest.strip_suffix('>'))
                .is_some_and(|uri| {
                    uri.is_ascii() && !uri.contains(['<', '>', ' ', ',']) && uri.contains(':')
                })
        };
        let parts: Vec<&str> = value.split(',').map(str::trim).collect();
        if parts.len() != *uris || !parts.iter().all(|part| is_uri(part)) {
            let what = format!(
                "{}: `{value}` is no list of URIs in angle brackets",
                field.name
            );
            let is_odd = |value: &str| value.contains(['<', '>', ',', ' ']) || !value.is_ascii();
            return Err(blamed(engine, &[text], row, is_odd, what));
        }
    }
    Ok(value.to_owned())
}

/// What is wrong with the value of a field that programs read.
fn unfit(field: &Compiled, value: &str) -> Option<String> {
    let is_date = |text: &str| {
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        parser.parse_timestamp(text).is_ok()
    };
    let is_id = |text: &str| {
        let inner = text
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'));
        inner.is_some_and(|id| {
            id.contains('@')
                && id.bytes().all(|byte| byte.is_ascii_graphic())
                && !id.contains(['<', '>'])
        })
    };
    // A field without a value is left out.
    let (is_fit, wanted) = match field.name.to_ascii_lowercase().as_str() {
        _ if value.is_empty() => return None,
        "date" => (is_date(value), "Tue, 24 Nov 2026 08:00:00 +0100"),
        "message-id" => (is_id(value), "<id@example.org>"),
        _ => return None,
    };
    let name = &field.name;
    (!is_fit).then(|| format!("{name}: `{value}` is not written as in {wanted}"))
}

/// The mailboxes of a field for a row.
pub(super) fn mailboxes(
    engine: &Engine,
    field: &Compiled,
    addresses: &AddressField,
    scope: &Value,
    row: &Row,
) -> Result<Vec<Named>, RowError> {
    addresses.render(engine, scope).map_err(|error| {
        let texts: Vec<&Text> = addresses.texts().collect();
        let what = format!("{}: {}", field.name, error.what);
        blamed(engine, &texts, row, |_| true, what)
    })
}

/// The error with the column to blame: the only one, or the first that is odd, of those that the texts name.
fn blamed(
    engine: &Engine,
    texts: &[&Text],
    row: &Row,
    is_odd: impl Fn(&str) -> bool,
    what: String,
) -> RowError {
    let asked = texts.iter().flat_map(|text| engine.names(text));
    let (names, unknown): (Vec<String>, Vec<String>) =
        asked.partition(|name| row.get(name).is_some());
    if unknown
        .iter()
        .any(|name| !OWN_NAMES.contains(&name.as_str()))
    {
        return RowError::new(what);
    }
    let has_control = |name: &&String| {
        row.text(name)
            .is_some_and(|value| value.chars().any(char::is_control))
    };
    let odd = |name: &&String| row.text(name).is_none_or(|value| is_odd(&value));
    let found = names
        .iter()
        .find(has_control)
        .or_else(|| names.iter().rfind(odd));
    match found {
        Some(name) => RowError::of(name, what),
        None => RowError::new(what),
    }
}

/// A text as a header field.
pub(super) fn header<'a>(field: &Compiled, value: String) -> HeaderType<'a> {
    if matches!(field.kind, Kind::Uris(..)) || value.is_ascii() {
        // RFC 2047 encodes what needs it; the rest stays readable, and is folded where it has blanks.
        return HeaderType::Raw(Raw::new(value));
    }
    HeaderType::Text(TextHeader::new(value))
}
