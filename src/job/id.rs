//! Names of jobs: `20261123-155610-3f9a`, the local time of their making and four hexadecimal digits.
//!
//! The digits are the first of the batch's digest, as long as no other job has that name: so a job whose card is damaged still
//! says which batches it is not of. Names become names of directories: nothing that a person typed ever does, unchecked.

use jiff::ZonedDateTime;

/// Length of a name in bytes.
const LEN: usize = 20;

/// Names for a job made `now`, best first: those from the digest, then random ones. Without end.
pub(super) fn names(now: &ZonedDateTime, digest: Option<&str>) -> impl Iterator<Item = String> {
    let time = now.strftime("%Y%m%d-%H%M%S").to_string();
    let mut random = fastrand::Rng::new();
    let digits: Vec<String> = digest
        .filter(|digest| digest.bytes().all(is_hex))
        .map(|digest| digest.as_bytes().chunks_exact(4))
        .into_iter()
        .flatten()
        .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
        .collect();
    let random = std::iter::repeat_with(move || format!("{:04x}", random.u16(..)));
    digits
        .into_iter()
        .chain(random)
        .map(move |digits| format!("{time}-{digits}"))
}

/// True if `text` is the name of a job.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == LEN
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 15 => byte == b'-',
            0..15 => byte.is_ascii_digit(),
            _ => is_hex(byte),
        })
}

/// True if a job of that name may be of the batch with this digest, for all that the name says.
pub(super) fn may_be_of(name: &str, digest: &str) -> bool {
    let digits = name.get(16..).unwrap_or_default();
    digest
        .as_bytes()
        .chunks_exact(4)
        .any(|chunk| chunk == digits.as_bytes())
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
