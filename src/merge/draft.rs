//! The header of a row's message, and where it goes: recipients first, since the other fields may speak of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mail_builder::headers::raw::Raw;
use minijinja::value::Value;

use super::address::{self, Named};
use super::engine::{RowObject, Scope};
use super::error::RowError;
use super::fields::{self, Compiled, Kind};
use super::row::Row;
use super::template::Template;
use crate::mail::{Mailbox, ReversePath};

impl Template {
    fn scope(&self, row: &Arc<RowObject>, recipient: &str, token: Option<String>) -> Scope {
        Scope {
            row: Arc::clone(row),
            job: self.job.clone(),
            recipient: recipient.to_owned(),
            token,
            content: None,
        }
    }

    /// Renders the header of a row's message.
    pub(super) fn draft(&self, row: Row) -> Result<Draft<'_>, RowError> {
        let column = self.recipient_column(&row.columns).map(str::to_owned);
        let row = Arc::new(RowObject(row));
        let first = Value::from_object(self.scope(&row, "", None));
        let mut addresses: BTreeMap<&str, Vec<Named>> = BTreeMap::new();
        // Recipients before all else: other fields may speak of them.
        let is_recipient = |field: &&Compiled| {
            ["To", "Cc", "Bcc", "X-Envelope-To"]
                .iter()
                .any(|name| field.is(name))
        };
        for field in self.fields.iter().filter(is_recipient) {
            if let Kind::Addresses(kind) = &field.kind {
                let found = fields::mailboxes(&self.engine, field, kind, &first, &row.0)?;
                addresses.insert(&field.name, found);
            }
        }
        if !self.names_recipients() {
            addresses.insert("To", self.sole_recipient(&row.0, column.as_deref())?);
        }
        let recipients = recipients(&addresses);
        let Some(recipient) = recipients.first() else {
            return Err(RowError::new("nobody to send it to"));
        };
        let token = self.token(&row.0, recipient)?;
        let key = self.key(&row.0, recipient)?;
        let scope = self.scope(&row, recipient.as_str(), token);
        let value = Value::from_object(scope.clone());
        for field in self.fields.iter().filter(|field| !is_recipient(field)) {
            if let Kind::Addresses(kind) = &field.kind {
                let found = fields::mailboxes(&self.engine, field, kind, &value, &row.0)?;
                addresses.insert(&field.name, found);
            }
        }
        let mut draft = Draft {
            header: Vec::new(),
            reverse_path: ReversePath::Null,
            domain: String::new(),
            recipients,
            key,
            scope,
            value,
        };
        draft.reverse_path = self.reverse_path(&addresses, &draft)?;
        draft.domain = named(&addresses, "From")
            .and_then(|from| from.first())
            .map(|from| from.mailbox.domain().to_string())
            .ok_or_else(|| RowError::new("From: no address"))?;
        self.fill(&mut draft, &addresses, &row.0)?;
        Ok(draft)
    }

    fn sole_recipient(&self, row: &Row, column: Option<&str>) -> Result<Vec<Named>, RowError> {
        let column = column.unwrap_or("email");
        let text = row.text(column).unwrap_or_default();
        let mailbox = Mailbox::parse_addr_spec(text.trim().as_bytes())
            .map_err(|error| RowError::of(column, format!("{text:?} is no address: {error}")))?;
        Ok(vec![Named {
            name: None,
            mailbox,
        }])
    }

    fn token(&self, row: &Row, recipient: &Mailbox) -> Result<Option<String>, RowError> {
        if !self.needs_token {
            return Ok(None);
        }
        if row.columns.position("token").is_some() {
            let token = row.text("token").unwrap_or_default();
            let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
            if token.is_empty() || !token.chars().all(is_fit) {
                let what = "a token has letters, digits and -_.~ only, and at least one";
                return Err(RowError::of("token", what));
            }
            return Ok(Some(token));
        }
        let key = self.options.token_key.as_ref();
        let token = key.map(|key| key.token(recipient.as_str()));
        token
            .map(Some)
            .ok_or_else(|| RowError::new("there is no key to make tokens with"))
    }

    fn key(&self, row: &Row, recipient: &Mailbox) -> Result<String, RowError> {
        let Some(column) = &self.options.key else {
            return Ok(recipient.as_str().to_lowercase());
        };
        let text = row.text(column).filter(|text| !text.is_empty());
        text.ok_or_else(|| RowError::of(column, "it is to tell rows apart, and is empty"))
    }

    fn reverse_path(
        &self,
        addresses: &BTreeMap<&str, Vec<Named>>,
        draft: &Draft<'_>,
    ) -> Result<ReversePath, RowError> {
        if let Some(pattern) = &self.options.verp {
            let token = draft.scope.token.as_deref().unwrap_or_default();
            let Some(recipient) = draft
                .recipients
                .first()
                .filter(|_| draft.recipients.len() == 1)
            else {
                let what =
                    "a reverse-path of its own is for mail to one recipient, and this has more";
                return Err(RowError::new(what));
            };
            let path = pattern.reverse_path(recipient, token);
            return path.ok_or_else(|| RowError::new("the reverse-path becomes too long"));
        }
        let first = ["X-Envelope-From", "Return-Path", "Sender", "From"]
            .iter()
            .find_map(|name| named(addresses, name)?.first());
        match first {
            Some(first) => ReversePath::parse(first.mailbox.as_str().as_bytes())
                .map_err(|error| RowError::new(error.to_string())),
            None => Err(RowError::new("From: no address")),
        }
    }

    /// The fields of the header, in the template's order.
    fn fill<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        addresses: &BTreeMap<&str, Vec<Named>>,
        row: &Row,
    ) -> Result<(), RowError> {
        let is_envelope = |name: &str| {
            ["Bcc", "X-Envelope-To", "X-Envelope-From", "Return-Path"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        };
        for field in &self.fields {
            let header = match &field.kind {
                Kind::Addresses(_) if is_envelope(&field.name) => continue,
                Kind::Addresses(_) => match addresses.get(field.name.as_str()) {
                    Some(found) if !found.is_empty() => owned(found),
                    _ => continue,
                },
                Kind::Text(text) | Kind::Uris(text, _) => {
                    let value = fields::render(&self.engine, field, text, &draft.value, row)?;
                    // A field without a value is one that the row leaves out.
                    if value.is_empty() {
                        continue;
                    }
                    fields::header(field, value)
                }
            };
            draft.header.push((canonical(&field.name), header));
        }
        if !self.names_recipients()
            && let Some(found) = addresses.get("To")
        {
            draft.header.push(("To", owned(found)));
        }
        draft.add_bulk_fields();
        Ok(())
    }
}

type Header<'a> = mail_builder::headers::HeaderType<'a>;

/// A message without its body.
pub(super) struct Draft<'a> {
    pub(super) header: Vec<(&'a str, Header<'static>)>,
    pub(super) reverse_path: ReversePath,
    /// That of From.
    pub(super) domain: String,
    pub(super) recipients: Vec<Mailbox>,
    pub(super) key: String,
    pub(super) scope: Scope,
    pub(super) value: Value,
}

impl Draft<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.header
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// What goes with a list's fields: one click is enough to leave (RFC 8058 3.1), and nobody answers by machine.
    fn add_bulk_fields(&mut self) {
        let is_unsubscribe =
            |(name, _): &&(&str, Header<'_>)| name.eq_ignore_ascii_case("List-Unsubscribe");
        let uris = match self.header.iter().find(is_unsubscribe) {
            Some((_, Header::Raw(raw))) => raw.raw.to_ascii_lowercase(),
            _ => String::new(),
        };
        if uris.contains("<https:") && !self.has("List-Unsubscribe-Post") {
            let value = Raw::new("List-Unsubscribe=One-Click");
            self.header.push(("List-Unsubscribe-Post", value.into()));
        }
        let is_list = !uris.is_empty() || self.has("List-Id");
        if is_list && !self.has("Precedence") {
            self.header.push(("Precedence", Raw::new("bulk").into()));
        }
    }
}

fn owned(found: &[Named]) -> Header<'static> {
    address::value(found.to_vec()).into()
}

/// The usual case of names that the builder knows by it.
fn canonical(name: &str) -> &str {
    ["Date", "Message-ID", "From", "To", "Cc", "Subject"]
        .into_iter()
        .find(|known| name.eq_ignore_ascii_case(known))
        .unwrap_or(name)
}

fn named<'a>(addresses: &'a BTreeMap<&str, Vec<Named>>, name: &str) -> Option<&'a Vec<Named>> {
    let mut found = addresses.iter();
    found
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, found)| found)
}

/// Each recipient once: those of X-Envelope-To, if it is there, else of To, Cc and Bcc.
fn recipients(addresses: &BTreeMap<&str, Vec<Named>>) -> Vec<Mailbox> {
    let names: &[&str] = match named(addresses, "X-Envelope-To") {
        Some(_) => &["X-Envelope-To"],
        None => &["To", "Cc", "Bcc"],
    };
    let mut found: Vec<Mailbox> = Vec::new();
    for named in names
        .iter()
        .filter_map(|name| named(addresses, name))
        .flatten()
    {
        if !found.contains(&named.mailbox) {
            found.push(named.mailbox.clone());
        }
    }
    found
}
