//! Fields that hold addresses: taken apart before values are put in, so that no value can add an address.
//!
//! `{{ first }} {{ last }} <{{ email }}>, team@example.org` is two mailboxes, a display name and an addr-spec each. Commas, quotes
//! and angle brackets of a value stay within the part that the value stands in.

use mail_builder::headers::address::Address;
use minijinja::value::Value;

use super::engine::{Engine, Mode, Text};
use super::error::{RowError, TemplateError};
use super::front::Field;
use crate::mail::Mailbox;

/// A mailbox of a field.
#[derive(Clone, Debug)]
struct Slot {
    name: Option<Text>,
    address: Text,
}

/// A field of addresses.
#[derive(Clone, Debug)]
pub(super) struct AddressField {
    slots: Vec<Slot>,
}

/// A mailbox with its display name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub(super) name: Option<String>,
    pub(super) mailbox: Mailbox,
}

impl AddressField {
    pub(super) fn compile(
        engine: &mut Engine,
        file: &str,
        field: &Field,
    ) -> Result<AddressField, TemplateError> {
        let mut slots = Vec::new();
        for (number, part) in split_outside(&field.value, ',').into_iter().enumerate() {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let (name, address) = split_angle(part).ok_or_else(|| {
                let what = format!("{}: `{part}` is no address", field.name);
                TemplateError::new(file, field.line, what)
                    .hint("write Name <address>, or the address alone")
            })?;
            let mut text = |label: &str, source: &str| {
                let label = format!("{} {number} {label}", field.name);
                engine.add(Mode::Field, &label, (file, field.line), source)
            };
            let name = match name.trim() {
                "" => None,
                name => Some(text("name", unquoted(name).as_str())?),
            };
            let address = text("address", address.trim())?;
            slots.push(Slot { name, address });
        }
        Ok(AddressField { slots })
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.slots
            .iter()
            .flat_map(|slot| slot.name.iter().chain([&slot.address]))
    }

    /// The mailboxes for a row.
    ///
    /// # Errors
    /// What a value makes of an address, without the column.
    pub(super) fn render(&self, engine: &Engine, scope: &Value) -> Result<Vec<Named>, RowError> {
        let mut found = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let address = engine.render(&slot.address, scope)?;
            let address = address.trim();
            let mailbox = Mailbox::parse_addr_spec(address.as_bytes())
                .map_err(|error| RowError::new(format!("{address:?} is no address: {error}")))?;
            let name = match &slot.name {
                Some(name) => Some(engine.render(name, scope)?.trim().to_owned()),
                None => None,
            };
            let name = name.filter(|name| !name.is_empty());
            if let Some(bad) = name
                .iter()
                .flat_map(|name| name.chars())
                .find(|c| c.is_control())
            {
                return Err(RowError::new(format!("{bad:?} in a name")));
            }
            found.push(Named { name, mailbox });
        }
        Ok(found)
    }
}

/// The field's value for the message.
pub(super) fn value(mailboxes: Vec<Named>) -> Address<'static> {
    let each = |named: Named| Address::new_address(named.name, named.mailbox.as_str().to_owned());
    Address::new_list(mailboxes.into_iter().map(each).collect())
}

/// Splits at `separator` where that stands outside of tags, quotes and angle brackets.
fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let (mut in_tag, mut in_quote, mut in_angle) = (false, false, false);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' | '%' if before == '{' => in_tag = true,
            '}' if before == '}' || before == '%' => in_tag = false,
            _ if in_tag => {}
            '"' if before != '\\' => in_quote = !in_quote,
            _ if in_quote => {}
            '<' => in_angle = true,
            '>' => in_angle = false,
            _ if c == separator && !in_angle => {
                parts.push(&text[begin..at]);
                begin = at + c.len_utf8();
            }
            _ => {}
        }
        before = c;
    }
    parts.push(&text[begin..]);
    parts
}

/// The display name and the addr-spec of a mailbox.
fn split_angle(part: &str) -> Option<(&str, &str)> {
    if let Some(inner) = part.strip_suffix('>') {
        let at = inner.rfind('<')?;
        return Some((&inner[..at], &inner[at + 1..]));
    }
    // A comparison in a tag may have one.
    let is_plain = !part.contains(['<', '>']) || part.contains("{%") || part.contains("{{");
    is_plain.then_some(("", part))
}

/// A display name without the quotes around it (RFC 5322 3.2.4).
fn unquoted(name: &str) -> String {
    let Some(inner) = name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return name.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut is_escaped = false;
    for c in inner.chars() {
        if c == '\\' && !is_escaped {
            is_escaped = true;
        } else {
            text.push(c);
            is_escaped = false;
        }
    }
    text
}
