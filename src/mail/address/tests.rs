use super::*;

fn wire(text: &str) -> Result<String, (usize, AddressFault)> {
    Mailbox::parse(text.as_bytes())
        .map(|mailbox| mailbox.as_str().to_owned())
        .map_err(|error| (error.offset, error.fault))
}

#[test]
fn one_mailbox_has_one_spelling() {
    for (text, want) in [
        ("a@b.example", "a@b.example"),
        ("<a@b.example>", "a@b.example"),
        ("  Ann Bee <Ann.Bee@B.Example>  ", "Ann.Bee@b.example"),
        ("\"a\"@b.example", "a@b.example"),
        ("\"a\".b@c.example", "a.b@c.example"),
        ("\"a b\"@c.example", "\"a b\"@c.example"),
        ("\"a..b\"@c.example", "\"a..b\"@c.example"),
        ("\"\"@c.example", "\"\"@c.example"),
        (r#""a\"\\\b"@c.example"#, r#""a\"\\b"@c.example"#),
        ("\"a\r\n b\"@c.example", "\"a b\"@c.example"),
        ("a (x(y\\))z) . b @ (w) c . example (v)", "a.b@c.example"),
        ("a@b.example.", "a@b.example"),
        ("a@[192.0.2.7]", "a@[192.0.2.7]"),
        ("a@[IPv6:2001:DB8::7]", "a@[IPv6:2001:db8::7]"),
        ("jürgen@bücher.example", "jürgen@xn--bcher-kva.example"),
        ("o'neil+tag=x@b.example", "o'neil+tag=x@b.example"),
        ("<@relay.example,@b.example:a@c.example>", "a@c.example"),
    ] {
        assert_eq!(wire(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn bad_addresses_are_refused_where_they_go_wrong() {
    let long_local = format!("{}@b.example", "a".repeat(65));
    let long_path = format!("a@{}example", "abcdefg.".repeat(31));
    for (text, offset, fault) in [
        ("", 0, AddressFault::Empty),
        (" , ", 0, AddressFault::Empty),
        ("<>", 1, AddressFault::NullPath),
        ("a", 1, AddressFault::NoAt),
        ("a b@c.example", 2, AddressFault::Unexpected('b')),
        ("@b.example", 0, AddressFault::LocalEmpty),
        ("a@", 2, AddressFault::DomainEmpty),
        ("a@b@c.example", 3, AddressFault::Unexpected('@')),
        (".a@b.example", 0, AddressFault::DotInLocal),
        ("a.@b.example", 2, AddressFault::DotInLocal),
        ("a..b@c.example", 2, AddressFault::DotInLocal),
        ("a@b..example", 2, AddressFault::LabelEmpty),
        ("a@-b.example", 2, AddressFault::HyphenAtEdge),
        ("a@192.0.2.7", 2, AddressFault::BareIp),
        ("a@[300.0.2.7]", 2, AddressFault::BadLiteral),
        ("a@[192.0.2.7", 2, AddressFault::BadLiteral),
        ("a@b!c.example", 2, AddressFault::BadDomain),
        ("\"a@b.example", 0, AddressFault::UnterminatedQuote),
        ("(a@b.example", 0, AddressFault::UnterminatedComment),
        ("<a@b.example", 0, AddressFault::UnterminatedAngle),
        ("<a@b.example> c", 14, AddressFault::TextAfterAngle),
        ("a@b.example, c@d.example", 13, AddressFault::Several),
        ("a\u{0}@b.example", 1, AddressFault::Unexpected('\0')),
        ("\"a\tb\"@c.example", 0, AddressFault::Invisible),
        ("\"a\\\r\"@c.example", 0, AddressFault::Invisible),
        ("\u{200b}a@c.example", 0, AddressFault::Invisible),
        ("a\u{a0}@c.example", 0, AddressFault::Invisible),
        (long_local.as_str(), 0, AddressFault::LocalTooLong),
        (long_path.as_str(), 0, AddressFault::PathTooLong),
    ] {
        assert_eq!(wire(text), Err((offset, fault)), "{text}");
    }
    assert_eq!(
        Mailbox::parse(b"\xff@b.example").unwrap_err().fault,
        AddressFault::NotUtf8
    );
    let deep = "(".repeat(1000);
    assert_eq!(wire(&deep), Err((0, AddressFault::CommentTooDeep)));
}

#[test]
fn equality_ignores_the_case_of_the_domain_only() {
    let mailbox = |text: &str| Mailbox::parse(text.as_bytes()).unwrap();
    assert_eq!(mailbox("a@B.example"), mailbox("\"a\"@b.EXAMPLE"));
    assert_ne!(mailbox("A@b.example"), mailbox("a@b.example"));
}

#[test]
fn only_a_non_ascii_local_part_needs_utf8() {
    let needs = |text: &str| Mailbox::parse(text.as_bytes()).unwrap().needs_utf8();
    assert!(needs("ü@b.example"));
    assert!(!needs("u@ü.example"));
    let mailbox = Mailbox::parse("\"x y\"@ü.example".as_bytes()).unwrap();
    assert_eq!(mailbox.local(), "\"x y\"");
}

#[test]
fn reverse_paths_may_be_null_and_may_be_long() {
    assert_eq!(ReversePath::parse(b" < (none) > "), Ok(ReversePath::Null));
    assert_eq!(ReversePath::Null.to_string(), "<>");
    let bounce = format!("bounces+{}=b.example@news.example", "a".repeat(80));
    let path = ReversePath::parse(bounce.as_bytes()).unwrap();
    assert_eq!(path.as_str(), bounce);
    assert_eq!(
        ReversePath::parse(b"").unwrap_err().fault,
        AddressFault::Empty
    );
    let first = ReversePath::parse_first(b"Ann <a@b.example>, c@d.example").unwrap();
    assert_eq!(first.as_str(), "a@b.example");
}

#[test]
fn what_is_read_the_short_way_is_read_alike_by_the_lexer() {
    let letters: Vec<&[u8]> = vec![
        b"a",
        b"B",
        b"-",
        b"_",
        b".",
        b"@",
        b"1",
        b" ",
        b"\"",
        b"\xc3\xa9",
        b"(",
        b"[",
    ];
    let (mut texts, mut plain) = (vec![Vec::new()], 0);
    for _ in 0..5 {
        texts = texts
            .iter()
            .flat_map(|text| letters.iter().map(move |letter| [text, *letter].concat()))
            .collect();
        for text in &texts {
            if let Some(mailbox) = parse_plain(text, LOCAL_OCTETS_MAX) {
                assert_eq!(
                    Ok(mailbox),
                    parse_by_lexer(text, LOCAL_OCTETS_MAX),
                    "{text:?}"
                );
                plain += 1;
            }
        }
    }
    assert!(plain > 1000, "{plain}");
    for (local, domain) in [(64, 3), (65, 3), (1, 255), (1, 256), (64, 189), (64, 190)] {
        let label = "b".repeat(63);
        let domain = [&label[..]; 5].join(".")[..domain]
            .trim_end_matches('.')
            .to_owned();
        let text = format!("{}@{domain}", "a".repeat(local));
        let read = parse_addr_spec(text.as_bytes(), LOCAL_OCTETS_MAX);
        assert_eq!(
            read,
            parse_by_lexer(text.as_bytes(), LOCAL_OCTETS_MAX),
            "{text}"
        );
    }
}
