use super::*;
use proptest::prelude::*;

/// Each entry as its address, or as `!` with the offset and the fault.
fn read(value: &str) -> Vec<String> {
    AddressList::new(value.as_bytes())
        .map(|entry| match entry.mailbox {
            Ok(mailbox) => mailbox.to_string(),
            Err(error) => format!("!{} {}", error.offset, error.fault),
        })
        .collect()
}

#[test]
fn lists_as_they_are_met() {
    for (value, want) in [
        ("a@x.test, b@x.test", vec!["a@x.test", "b@x.test"]),
        (
            "\"Smith, John\" <j@x.test>,\r\n Ann (the, other) <a@x.test>",
            vec!["j@x.test", "a@x.test"],
        ),
        ("undisclosed-recipients:;", vec![]),
        (
            "Team: a@x.test, B <b@x.test>; c@x.test",
            vec!["a@x.test", "b@x.test", "c@x.test"],
        ),
        ("Team: a@x.test", vec!["a@x.test"]),
        ("a@x.test; b@x.test;", vec!["a@x.test", "b@x.test"]),
        (",, a@x.test ,,", vec!["a@x.test"]),
        ("a@x.test <a@x.test>", vec!["a@x.test"]),
        ("=?utf-8?Q?J=2C?= <j@x.test>", vec!["j@x.test"]),
        ("Jörg Ö. <j@x.test>", vec!["j@x.test"]),
        ("<@r.test,@s.test:a@x.test>", vec!["a@x.test"]),
        (
            "\"a,b\"@x.test, c@[192.0.2.1]",
            vec!["\"a,b\"@x.test", "c@[192.0.2.1]"],
        ),
        ("", vec![]),
        (" (nobody) ", vec![]),
    ] {
        assert_eq!(read(value), want, "{value}");
    }
}

#[test]
fn the_others_survive_a_bad_one() {
    for (value, want) in [
        ("Smith, John <j@x.test>", vec!["!5 no @", "j@x.test"]),
        ("a@, b@x.test", vec!["!2 nothing after the @", "b@x.test"]),
        (
            "\"a@x.test, b@x.test",
            vec!["!0 a quoted string that does not end", "b@x.test"],
        ),
        (
            "(a@x.test, b@x.test",
            vec!["!0 a comment that does not end", "b@x.test"],
        ),
        (
            "<a@x.test, b@x.test",
            vec!["!0 '<' without '>'", "b@x.test"],
        ),
        (
            "<>, b@x.test",
            vec!["!1 the null path <> is no recipient", "b@x.test"],
        ),
        (
            "a\\b@x.test, b@x.test",
            vec!["!1 unexpected '\\\\'", "b@x.test"],
        ),
        (
            "a@x.test:b@x.test, c@x.test",
            vec![
                "!8 an address, or a group within a group, before ':'",
                "c@x.test",
            ],
        ),
    ] {
        assert_eq!(read(value), want, "{value}");
    }
}

#[test]
fn ranges_hold_the_addr_spec_alone() {
    let value = b"Ann (x) < a (y) @x.test >,b@x.test, junk ";
    let texts: Vec<&[u8]> = AddressList::new(value)
        .map(|entry| &value[entry.range])
        .collect();
    assert_eq!(texts, [&b"a (y) @x.test"[..], b"b@x.test", b"junk"]);
}

#[test]
fn hostile_lists_take_linear_time() {
    // Each of these would take hours if every opening were followed to the end of the value.
    for piece in ["(,", "\",\\\"", "[,", "<,", "(\\(,", "<@a,", ":,", "\\\","] {
        let value = piece.repeat(500_000);
        let entries = AddressList::new(value.as_bytes()).count();
        assert!(entries <= 500_001, "{piece}: {entries}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_ranges_parse_alone(value in address_soup()) {
        let mut end = 0;
        for entry in AddressList::new(&value) {
            prop_assert!(entry.range.start >= end && entry.range.end <= value.len());
            end = entry.range.end;
            if let Ok(mailbox) = entry.mailbox {
                let alone = Mailbox::parse_addr_spec(&value[entry.range.clone()]).unwrap();
                prop_assert_eq!(&alone, &mailbox);
                prop_assert!(mailbox.as_str().len() <= PATH_OCTETS_MAX);
                prop_assert!(!mailbox.as_str().chars().any(char::is_control));
                // The wire form means the same mailbox.
                prop_assert_eq!(Mailbox::parse(mailbox.as_str().as_bytes()).unwrap(), mailbox);
            }
        }
    }
}

/// Bytes that meet the interesting paths more often than uniform ones would.
fn address_soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(&b"@@@..,,;:<>()[]\"\\ \r\n\tab-_"[..]).prop_map(|b| vec![b]),
        1 => any::<u8>().prop_map(|b| vec![b]),
        2 => Just(b"a@x.test".to_vec()),
        1 => Just("ü".as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}
