use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn of(text: &str) -> Suppression {
    let mut lists = Suppression::default();
    lists
        .add("list.csv", text.as_bytes(), at("2026-11-24T12:00:00Z"))
        .unwrap();
    lists
}

fn said(lists: &Suppression, address: &str) -> Option<String> {
    let mailbox = Mailbox::parse(address.as_bytes()).unwrap();
    let verdict = lists.verdict(&mailbox)?;
    assert_eq!(verdict.status, Status::Suppressed);
    Some(verdict.text)
}

#[test]
fn addresses_domains_and_what_lies_below_domains_are_found_with_their_line() {
    let lists = of(
        "# who wrote\n\nAnn@Example.org\n@gone.example\nspare.example\n*.deep.example\n\"\"\"b c\"\"@quoted.example\"\n.dot.example\n",
    );
    assert_eq!(lists.len(), 6);
    for (address, line) in [
        ("ann@example.org", Some(3)),
        ("ANN@EXAMPLE.ORG", Some(3)),
        ("bob@example.org", None),
        ("any@gone.example", Some(4)),
        ("any@Spare.Example", Some(5)),
        ("any@sub.spare.example", None),
        ("any@deep.example", None),
        ("any@a.deep.example", Some(6)),
        ("any@a.b.deep.example", Some(6)),
        ("any@notdeep.example", None),
        ("\"b c\"@quoted.example", Some(7)),
        ("any@dot.example", None),
        ("any@a.dot.example", Some(8)),
    ] {
        let text = line.map(|line| format!("suppressed: list.csv, line {line}"));
        assert_eq!(said(&lists, address), text, "{address}");
    }
    assert_eq!(said(&Suppression::default(), "ann@example.org"), None);
}

#[test]
fn entries_run_out() {
    let lists = of(
        "a@x.example,2026-11-23\nb@x.example,2026-11-24\nc@x.example,2026-11-24T12:00:00Z\nd@x.example,2026-11-24T12:00:01Z,asked\ne@x.example,,asked\n",
    );
    let left: Vec<_> = ["a", "b", "c", "d", "e"]
        .into_iter()
        .filter(|who| said(&lists, &format!("{who}@x.example")).is_some())
        .collect();
    assert_eq!(left, ["b", "d", "e"]);
}

#[test]
fn a_first_line_may_name_the_columns() {
    let report = of(
        "message,recipient,status,reply\n1,a@x.example,refused,\"no, never\"\n2,b@x.example,refused,x\n",
    );
    assert_eq!(
        said(&report, "a@x.example").unwrap(),
        "suppressed: list.csv, line 2"
    );
    assert!(said(&report, "b@x.example").is_some());
    let list =
        of("\u{feff}reason,expires,Email\nasked,2020-01-01,a@x.example\nasked,,b@x.example\n");
    assert!(said(&list, "a@x.example").is_none());
    assert!(said(&list, "b@x.example").is_some());
}

#[test]
fn the_first_list_that_has_somebody_is_named() {
    let mut lists = of("a@x.example\n");
    lists
        .add("second", b"x.example\n", Timestamp::UNIX_EPOCH)
        .unwrap();
    assert_eq!(
        said(&lists, "a@x.example").unwrap(),
        "suppressed: list.csv, line 1"
    );
    assert_eq!(
        said(&lists, "b@x.example").unwrap(),
        "suppressed: second, line 1"
    );
    assert_eq!(lists.names(), ["list.csv", "second"]);
}

#[test]
fn what_cannot_be_understood_spoils_the_list() {
    for (text, line, what) in [
        ("a@x.example\nnobody\n", 2, "\"nobody\" is neither"),
        ("a@@x.example\n", 1, "neither"),
        ("# x\n\n a b@x.example\n", 3, "neither"),
        ("a@x.example, tomorrow\n", 1, "\"tomorrow\" is no date"),
        ("*.\n", 1, "neither"),
        ("@\n", 1, "neither"),
        ("address,until\n,2027-01-01\n", 2, "\"\" is neither"),
    ] {
        let mut lists = of("kept@x.example\n");
        let error = lists
            .add("bad", text.as_bytes(), Timestamp::UNIX_EPOCH)
            .unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.to_string().contains(what), "{text:?}: {error}");
        assert_eq!((lists.len(), lists.names().len()), (1, 1), "{text:?}");
    }
}
