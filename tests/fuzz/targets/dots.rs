//! Dot-stuffing: un-stuff(stuff(x)) = x, wherever either is cut, and nothing behind the end is touched.

use super::{Seen, pieces};
use mailer::smtp::dot::{self, Stuffer, Unstuffer};

/// What matters to dots.
pub const WORDS: &[&[u8]] = &[
    b".",
    b"\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r",
    b"\n",
    b"\r\n..",
    b".\r\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"x",
];

/// Takes `pieces` in until the end; returns the content and how many bytes were used.
fn unstuff<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, usize, bool) {
    let (mut unstuffer, mut content, mut used) = (Unstuffer::new(), Vec::new(), 0);
    for piece in pieces {
        let step = unstuffer.push(piece, &mut content);
        used += step.used;
        if step.ended {
            return (content, used, true);
        }
        assert_eq!(step.used, piece.len());
    }
    (content, used, false)
}

pub fn play(input: &[u8], seen: &mut Seen) {
    let mut stuffed = Vec::new();
    dot::stuff_into(input, &mut stuffed);
    assert_eq!(stuffed != input, dot::needs_stuffing(input));
    let (mut stuffer, mut in_pieces) = (Stuffer::new(), Vec::new());
    for piece in pieces(input) {
        stuffer.push(piece, &mut in_pieces);
    }
    assert_eq!(in_pieces, stuffed, "cutting changes nothing");
    assert_eq!(stuffer.end(), dot::end_of(input));
    stuffed.extend_from_slice(dot::end_of(input));

    // The final dot completes an open last line.
    let mut expected = input.to_vec();
    if !input.is_empty() && !input.ends_with(b"\r\n") {
        expected.extend_from_slice(b"\r\n");
    }
    let length = stuffed.len();
    let followed = [&stuffed[..], b"QUIT\r\n.\r\n"].concat();
    assert_eq!(unstuff([&followed[..]]), (expected.clone(), length, true));
    assert_eq!(unstuff(pieces(&followed)), (expected, length, true));

    // And what is no content of ours: any bytes, taken as a client's.
    let whole = unstuff([input]);
    assert_eq!(whole, unstuff(pieces(input)), "cutting changes nothing");
    if whole.2 {
        let end = &input[..whole.1];
        assert!(
            end == b".\r\n" || end.ends_with(b"\r\n.\r\n"),
            "only CRLF . CRLF ends"
        );
    }
    seen.note((whole.2, whole.0.len().min(40), stuffed.len().min(200) / 4));
}
