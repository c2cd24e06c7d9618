use super::*;

/// The reverse-path and the recipients of a header; errors as text.
fn derive(header: &str, from_line: &str, rules: &Rules<'_>) -> (String, Vec<String>) {
    let mut fields = Fields::default();
    fields.scan(header.as_bytes(), false).unwrap();
    let reverse_path = reverse_path(header.as_bytes(), &fields, from_line.as_bytes(), rules);
    let mut found = Vec::new();
    recipients(header.as_bytes(), &fields, rules, &mut found);
    let texts = found
        .iter()
        .map(|recipient| {
            let range = recipient.start as usize..(recipient.start + recipient.len) as usize;
            let text = &header[range];
            match &recipient.mailbox {
                Ok(mailbox) => {
                    let alone = Mailbox::parse_addr_spec(text.as_bytes()).unwrap();
                    assert_eq!(&alone, mailbox);
                    mailbox.to_string()
                }
                Err(error) => format!("!{text} at {}: {}", error.offset, error.fault),
            }
        })
        .collect();
    (
        reverse_path.map_or_else(|fault| format!("!{fault}"), |path| path.to_string()),
        texts,
    )
}

fn sender(header: &str, from_line: &str, rules: &Rules<'_>) -> String {
    derive(header, from_line, rules).0
}

#[test]
fn the_first_reverse_path_that_is_there_counts() {
    let option = ReversePath::parse(b"option@x.test").unwrap();
    let with_option = Rules {
        from: Some(&option),
        ..Rules::default()
    };
    let none = Rules::default();
    let from_line = "From line@x.test Mon Jan  1 00:00:00 2024\n";
    let all = "From: First <from@x.test>, other@x.test\nSender: sender@x.test\nReturn-Path: <path@x.test>\nX-Envelope-From: <env@x.test>\n";
    let without = |name: &str| {
        all.split_inclusive('\n')
            .filter(|line| !line.starts_with(name))
            .collect::<String>()
    };
    assert_eq!(sender(all, from_line, &with_option), "<env@x.test>");
    let rest = without("X-Envelope-From");
    assert_eq!(sender(&rest, from_line, &with_option), "<option@x.test>");
    assert_eq!(sender(&rest, from_line, &none), "<path@x.test>");
    let rest = "From: First <from@x.test>, other@x.test\nSender: sender@x.test\n";
    assert_eq!(sender(rest, from_line, &none), "<line@x.test>");
    let daemon = "From MAILER-DAEMON Mon Jan  1 00:00:00 2024\n";
    let null = "From <> Mon Jan  1 00:00:00 2024\n";
    assert_eq!(sender("From: from@x.test\n", null, &none), "<from@x.test>");
    assert_eq!(sender(rest, daemon, &none), "<sender@x.test>");
    let rest = "From: First <from@x.test>, other@x.test\n";
    assert_eq!(sender(rest, daemon, &none), "<from@x.test>");
    assert_eq!(sender("To: a@x.test\n", daemon, &none), "!no sender");
}

#[test]
fn a_null_reverse_path_is_one_and_a_bad_one_does_not_fall_through() {
    let none = Rules::default();
    assert_eq!(sender("Return-Path: <>\nFrom: a@x.test\n", "", &none), "<>");
    assert_eq!(
        sender("X-Envelope-From: a@\nFrom: a@x.test\n", "", &none),
        "!bad address in X-Envelope-From: nothing after the @"
    );
    assert_eq!(
        sender("From: Team: ;\n", "", &none),
        "!bad address in From: no address"
    );
}

#[test]
fn recipients_come_from_the_most_explicit_fields() {
    let none = Rules::default();
    let to = |header: &str| derive(header, "", &none).1;
    let plain = "To: a@x.test, B <b@x.test>\nCc: c@x.test\nBcc: d@x.test\n";
    assert_eq!(to(plain), ["a@x.test", "b@x.test", "c@x.test", "d@x.test"]);
    let resent = format!("Resent-Bcc: e@x.test\nResent-To: f@x.test\n{plain}");
    assert_eq!(to(&resent), ["e@x.test", "f@x.test"]);
    let envelope = format!("{resent}X-Envelope-To: g@x.test\nx-envelope-to: <h@x.test>\n");
    assert_eq!(to(&envelope), ["g@x.test", "h@x.test"]);
    let elsewhere = Rules {
        recipients_elsewhere: true,
        ..none
    };
    assert_eq!(derive(&envelope, "", &elsewhere).1, [""; 0]);
}

#[test]
fn a_recipient_named_twice_counts_once() {
    let none = Rules::default();
    let header = "To: a@x.test, A <a@X.test>, b@x.test\nCc: \"a\"@x.test, A@x.test\n";
    assert_eq!(
        derive(header, "", &none).1,
        ["a@x.test", "b@x.test", "A@x.test"]
    );
    let many: Vec<String> = (0..100).map(|i| format!("r{}@x.test", i % 40)).collect();
    let header = format!("To: {}\n", many.join(",\n "));
    assert_eq!(derive(&header, "", &none).1, many[..40]);
}

#[test]
fn a_bad_recipient_is_kept_with_its_place() {
    let (_, found) = derive("To: a@x.test, b@, c@x.test\n", "", &Rules::default());
    assert_eq!(
        found,
        ["a@x.test", "!b@ at 16: nothing after the @", "c@x.test"]
    );
}

#[test]
fn an_inbox_is_refused_unless_asked_for() {
    let check = |header: &str, resend| {
        let mut fields = Fields::default();
        fields.scan(header.as_bytes(), false).unwrap();
        check_journey(
            &fields,
            &Rules {
                resend,
                ..Rules::default()
            },
        )
    };
    let received = "Received: from y\nTo: a@x.test\n";
    assert_eq!(
        check(received, false),
        Err(EnvelopeFault::Journey(FieldKind::Received))
    );
    assert_eq!(check(received, true), Ok(()));
    assert!(check("Delivered-To: a@x.test\n", false).is_err());
    assert_eq!(
        check("Received: from y\nX-Envelope-To: a@x.test\n", false),
        Ok(())
    );
    assert_eq!(check("To: a@x.test\n", false), Ok(()));
}
