use super::*;
use crate::mbox::fault::Fault;
use proptest::prelude::*;

const DATED: &str = "Date: x\nMessage-ID: <y>\n";

fn canonical(
    content: &[u8],
    flavour: Option<MboxFlavour>,
    fold_long_lines: bool,
) -> Result<(Vec<u8>, Facts), FaultAt> {
    let rules = Rules {
        flavour,
        fold_long_lines,
        date: "Mon, 01 Jan 2024 00:00:00 +0000",
    };
    let mut fields = Fields::default();
    fields.scan(&content[..split(content).0], fold_long_lines)?;
    let mut out = b"left over".to_vec();
    let facts = canonicalise(content, &fields, &rules, &mut out)?;
    Ok((out, facts))
}

fn text(content: &str, flavour: Option<MboxFlavour>) -> String {
    String::from_utf8(canonical(content.as_bytes(), flavour, false).unwrap().0).unwrap()
}

#[test]
fn line_ends_become_crlf_and_the_last_line_has_one() {
    let want = "Date: x\r\nMessage-ID: <y>\r\nA: b\r\n c\r\n\r\none\r\n\r\ntwo\r\n";
    for body in [
        "one\n\ntwo",
        "one\n\r\ntwo\n",
        "one\r\n\r\ntwo",
        "one\r\n\r\ntwo\r\n",
    ] {
        assert_eq!(text(&format!("{DATED}A: b\n c\n\n{body}"), None), want);
    }
    assert_eq!(text(DATED, None), "Date: x\r\nMessage-ID: <y>\r\n");
    assert_eq!(
        text(&format!("{DATED}\n"), None),
        "Date: x\r\nMessage-ID: <y>\r\n\r\n"
    );
}

#[test]
fn quotes_come_off_as_the_flavour_has_it() {
    let body = ">From a\n>>From b\n>From\nx >From c\n> From d\n";
    let message = format!("{DATED}\n{body}");
    let head = "Date: x\r\nMessage-ID: <y>\r\n\r\n";
    let tail = ">From\r\nx >From c\r\n> From d\r\n";
    let read = |flavour| text(&message, flavour);
    assert_eq!(
        read(Some(MboxFlavour::Rd)),
        format!("{head}From a\r\n>From b\r\n{tail}")
    );
    assert_eq!(
        read(Some(MboxFlavour::O)),
        format!("{head}From a\r\n>>From b\r\n{tail}")
    );
    let as_is = format!("{head}>From a\r\n>>From b\r\n{tail}");
    assert_eq!(read(Some(MboxFlavour::Cl2)), as_is);
    assert_eq!(read(None), as_is);
}

#[test]
fn secret_fields_never_leave() {
    let message = format!(
        "X-Envelope-From: a@x.test\nx-envelope-TO: b@x.test,\n c@x.test\nTo: d@x.test\nBCC: e@x.test\n f@x.test\nResent-Bcc: g@x.test\nReturn-Path: <h@x.test>\nStatus: RO\nContent-Length: 3\n{DATED}\nBcc: stays\n"
    );
    let kept = "To: d@x.test\r\nStatus: RO\r\nContent-Length: 3\r\nDate: x\r\nMessage-ID: <y>\r\n\r\nBcc: stays\r\n";
    assert_eq!(text(&message, Some(MboxFlavour::Rd)), kept);
    let without_length = kept.replace("Content-Length: 3\r\n", "");
    assert_eq!(text(&message, Some(MboxFlavour::Cl2)), without_length);
}

#[test]
fn a_missing_date_and_message_id_are_added_and_stable() {
    let from_mbox = text(
        "From: A <a@Ex.test>\nBcc: x@y.test\n\nhi\n",
        Some(MboxFlavour::Rd),
    );
    let from_file = text("From: A <a@Ex.test>\r\n\r\nhi", None);
    assert_eq!(from_mbox, from_file);
    let digest = hex(&Sha256::digest(b"From: A <a@Ex.test>\r\n\r\nhi\r\n")[..16]);
    let want = format!(
        "Message-ID: <{digest}.mailer@ex.test>\r\nDate: Mon, 01 Jan 2024 00:00:00 +0000\r\nFrom: A <a@Ex.test>\r\n\r\nhi\r\n"
    );
    assert_eq!(from_file, want);
    assert!(text("Date: x\n\n", None).contains(".mailer@localhost>"));
}

#[test]
fn eight_bit_bytes_are_told_by_where_they_are() {
    let facts = |message: &str| canonical(message.as_bytes(), None, false).unwrap().1;
    let (yes, no) = (true, false);
    assert_eq!(
        facts("A: b\n\nc\n"),
        Facts {
            eight_bit: no,
            utf8_header: no
        }
    );
    assert_eq!(
        facts("A: b\n\nü\n"),
        Facts {
            eight_bit: yes,
            utf8_header: no
        }
    );
    assert_eq!(
        facts("A: ü\n\nc\n"),
        Facts {
            eight_bit: yes,
            utf8_header: yes
        }
    );
    // What never leaves asks nothing of the server.
    assert_eq!(
        facts("A: b\nBcc: ü@x.test\n\nc\n"),
        Facts {
            eight_bit: no,
            utf8_header: no
        }
    );
}

#[test]
fn unfit_content_is_refused_with_its_offset() {
    let long = [b"A: b\n\n", &[b'x'; 999][..]].concat();
    for (message, fault, offset) in [
        (&b"A: b\n\nc\rd\n"[..], Fault::StrayCr, 7),
        (b"A: b\n\nc\0", Fault::Nul, 7),
        (b"A: b\nc\n\n", Fault::NoField, 5),
        (b"\nbody", Fault::NoHeader, 0),
        (&long, Fault::LongLine, 6),
    ] {
        let error = canonical(message, None, false).unwrap_err();
        assert_eq!((error.fault, error.offset), (fault, offset));
    }
}

#[test]
fn long_lines_are_broken_where_that_is_wished() {
    let message = format!(
        "{DATED}S: {}\n\n{}ü{}\n",
        "x".repeat(2000),
        "y".repeat(997),
        "z".repeat(10)
    );
    let (out, _) = canonical(message.as_bytes(), None, true).unwrap();
    let lines: Vec<&[u8]> = out
        .split(|&b| b == b'\n')
        .map(|line| line.trim_ascii_end())
        .collect();
    let lengths: Vec<usize> = lines.iter().map(|line| line.len()).collect();
    assert_eq!(lengths, [7, 15, 998, 998, 9, 0, 997, 12, 0]);
    assert!(lines[3].starts_with(b" x") && lines[7].starts_with("ü".as_bytes()));
}

proptest! {
    #[test]
    fn what_leaves_is_always_fit(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "\n", "\r\n", "\r", "\0", "A: b", ">From x", "From x", "Bcc: y", " ", "é", ":", "Content-Length: 1",
        ]).prop_map(str::as_bytes).prop_map(<[u8]>::to_vec), 0..30),
        long in prop::option::of(900..2100_usize),
        fold in any::<bool>(),
        flavour in prop::sample::select(vec![None, Some(MboxFlavour::Rd), Some(MboxFlavour::O), Some(MboxFlavour::Cl2)]),
    ) {
        let mut content = b"A: ".to_vec();
        content.extend(pieces.concat());
        content.extend(vec![b'x'; long.unwrap_or(0)]);
        if let Ok((out, _)) = canonical(&content, flavour, fold) {
            prop_assert!(out.ends_with(b"\r\n"));
            prop_assert!(!out.contains(&0));
            let mut rest = out.as_slice();
            while let Some(lf) = memchr::memchr(b'\n', rest) {
                let line = rest[..lf].strip_suffix(b"\r").expect("a bare LF");
                prop_assert!(!line.contains(&b'\r') && line.len() <= LINE_OCTETS_MAX);
                rest = &rest[lf + 1..];
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = canonical(&content, Some(MboxFlavour::Rd), true);
    }
}
