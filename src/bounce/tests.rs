use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/bounces/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn said(message: &[u8], verp: Option<&Verp>) -> Option<Vec<(String, Kind, String, String)>> {
    let findings = read(message, verp)?;
    let tuple = |finding: Finding| {
        let who = finding.recipient.to_string();
        (who, finding.kind, finding.status, finding.reason)
    };
    Some(findings.into_iter().map(tuple).collect())
}

fn found(name: &str) -> Vec<(String, Kind, String, String)> {
    said(&fixture(name), None).unwrap()
}

fn row(who: &str, kind: Kind, status: &str, reason: &str) -> (String, Kind, String, String) {
    (who.into(), kind, status.into(), reason.into())
}

#[test]
fn a_delivery_status_names_whom_the_mail_was_for_and_not_to_whom_it_was_forwarded() {
    let expected = row(
        "ann+news@old.example",
        Kind::Hard,
        "5.1.1",
        "X-Postfix; unknown user: \"ann\"",
    );
    assert_eq!(found("postfix-unknown.eml"), [expected]);
}

#[test]
fn the_address_that_the_bounce_went_to_says_it_best() {
    let verp: Verp = "Bounces+{address}@news.example".parse().unwrap();
    let findings = said(&fixture("postfix-unknown.eml"), Some(&verp)).unwrap();
    assert_eq!(
        (findings.len(), findings[0].0.as_str()),
        (1, "ann@old.example")
    );
    let other: Verp = "other+{address}@news.example".parse().unwrap();
    let findings = said(&fixture("postfix-unknown.eml"), Some(&other)).unwrap();
    assert_eq!(findings[0].0, "ann+news@old.example");
    let several = String::from_utf8(fixture("several.eml")).unwrap();
    let one = several.replace("To: bounces@", "To: bounces+eve=list.example@");
    let findings = said(one.as_bytes(), Some(&verp)).unwrap();
    assert_eq!(
        (findings.len(), findings[0].0.as_str()),
        (1, "eve@list.example")
    );
}

#[test]
fn each_recipient_of_a_report_has_his_own_fate() {
    let expected = [
        row(
            "gone@big.example",
            Kind::Hard,
            "5.1.10",
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found",
        ),
        row(
            "full@big.example",
            Kind::Soft,
            "5.2.2",
            "552 5.2.2 mailbox full",
        ),
        row("slow@big.example", Kind::Undecided, "4.4.7", ""),
        row(
            "fast@big.example",
            Kind::Throttled,
            "5.7.1",
            "550 5.7.1 too many messages from your address",
        ),
    ];
    assert_eq!(found("several.eml"), expected);
}

#[test]
fn exim_names_those_who_failed_in_a_field_and_the_reasons_in_the_text() {
    let findings = found("exim.eml");
    let kinds: Vec<_> = findings
        .iter()
        .map(|(who, kind, ..)| (who.as_str(), *kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("nobody@exim.example", Kind::Hard),
            ("other@exim.example", Kind::Soft)
        ]
    );
    assert!(findings[0].3.ends_with("550 no such user"), "{findings:?}");
}

#[test]
fn complaints_are_complaints_and_taking_them_back_is_none() {
    let expected = row("cross@provider.example", Kind::Complaint, "", "abuse");
    assert_eq!(found("complaint.eml"), [expected]);
    let text = String::from_utf8(fixture("complaint.eml")).unwrap();
    let back = text.replace("Feedback-Type: abuse", "Feedback-Type: not-spam");
    assert_eq!(read(back.as_bytes(), None), None);
}

#[test]
fn what_is_no_bounce_says_nothing_whatever_words_it_has() {
    let verp: Verp = "bounces+{address}@news.example".parse().unwrap();
    assert_eq!(read(&fixture("holiday.eml"), Some(&verp)), None);
    assert_eq!(read(b"", None), None);
}

#[test]
fn patterns_are_checked_and_addresses_come_back_out_of_them() {
    for bad in [
        "",
        "a@b.example",
        "{address}",
        "b+{address}",
        "x@{address}",
        "b+{address}@",
        "b {address}@x.example",
    ] {
        assert_eq!(bad.parse::<Verp>(), Err(BadPattern), "{bad}");
    }
    let verp: Verp = "b+{address}@x.example".parse().unwrap();
    for (address, who) in [
        ("b+ann=old.example@x.example", Some("ann@old.example")),
        ("B+a=b=old.example@X.EXAMPLE", Some("a=b@old.example")),
        ("b+ann@x.example", None),
        ("b+@x.example", None),
        ("b+ann=old.example@y.example", None),
    ] {
        let address = Mailbox::parse(address.as_bytes()).unwrap();
        let said = verp.recipient(&address).map(|who| who.to_string());
        assert_eq!(said.as_deref(), who, "{address}");
    }
}

/// Whatever a message is cut or changed to, it is read to the end, and no text of it can repaint a terminal.
#[test]
fn damaged_messages_are_read_like_any_other() {
    let mut rng = fastrand::Rng::with_seed(7);
    for name in [
        "postfix-unknown.eml",
        "several.eml",
        "exim.eml",
        "complaint.eml",
    ] {
        let whole = fixture(name);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..rng.usize(1..8) {
                let at = rng.usize(..bytes.len());
                match rng.u8(..4) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = rng.u8(..),
                    2 => bytes.insert(at, b"\x1b\0\r\n:;=-"[rng.usize(..8)]),
                    _ => drop(bytes.remove(at.min(bytes.len() - 1))),
                }
                if bytes.is_empty() {
                    bytes.push(b'x');
                }
            }
            for finding in read(&bytes, None).into_iter().flatten() {
                assert!(!finding.reason.contains(char::is_control), "{finding:?}");
                assert!(finding.reason.len() <= REASON_BYTES_MAX);
            }
        }
    }
}
