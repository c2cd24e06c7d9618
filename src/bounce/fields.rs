//! The fields of delivery-status and feedback parts: groups of them, empty lines between (RFC 3464 2.1, RFC 5965 3).
//!
//! INVARIANT: a line that is no field is passed over; groups and values are bounded.

/// The most fields that are taken from a group.
const FIELDS_MAX: usize = 100;
/// A value that was folded grows no longer than about this, in bytes.
const VALUE_BYTES_MAX: usize = 4096;

/// One group, in order.
#[derive(Default, Debug)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of the first field of this name.
    pub fn get(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields of this name.
    pub fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let is_named = move |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.0
            .iter()
            .filter(is_named)
            .map(|(_, value)| value.as_str())
    }
}

/// The groups of a part's content; those without a field are left out.
pub fn groups(content: &[u8]) -> impl Iterator<Item = Fields> + '_ {
    let mut lines = content.split(|byte| *byte == b'\n');
    std::iter::from_fn(move || {
        let mut fields = Fields::default();
        loop {
            match lines.next().map(trim_end) {
                None if fields.0.is_empty() => return None,
                None => return Some(fields),
                Some([]) if fields.0.is_empty() => {}
                Some([]) => return Some(fields),
                Some(line) => take(&mut fields, line),
            }
        }
    })
}

fn trim_end(line: &[u8]) -> &[u8] {
    line.trim_ascii_end()
}

fn take(fields: &mut Fields, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    if line.starts_with([' ', '\t']) {
        if let Some((_, value)) = fields.0.last_mut()
            && value.len() < VALUE_BYTES_MAX
        {
            value.push(' ');
            value.push_str(line.trim());
        }
        return;
    }
    if fields.0.len() < FIELDS_MAX
        && let Some((name, value)) = line.split_once(':')
    {
        let field = (name.trim().to_owned(), value.trim().to_owned());
        fields.0.push(field);
    }
}

/// Undoes xtext (RFC 3461 4): `+` and two hexadecimal digits. `None` if it is none.
pub fn from_xtext(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        match (first, behind) {
            (b'+', [high, low, ..]) => {
                let digit = |byte: u8| (byte as char).to_digit(16);
                bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
                rest = &behind[2..];
            }
            (b'+', _) => return None,
            (byte, _) => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}
