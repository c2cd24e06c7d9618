use super::*;
use proptest::prelude::*;

const FROM_A: &str = "From a@b.test Mon Jan  1 00:00:00 2024\n";

/// What a file was split into: (From_ line, content, faults and suspects) of each message. The window grows by the next of
/// `chunks` (the last one repeats) whenever the splitter asks for more.
fn split(
    file: &[u8],
    flavour: MboxFlavour,
    chunks: &[usize],
) -> Vec<(Vec<u8>, Vec<u8>, Vec<String>)> {
    let mut splitter = Splitter::new(flavour);
    let mut messages: Vec<(Vec<u8>, Vec<u8>, Vec<String>)> = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut chunks = chunks
        .iter()
        .copied()
        .chain(std::iter::repeat(*chunks.last().unwrap()));
    let mut open = false;
    loop {
        let step = splitter.next(&file[start..end], end == file.len());
        let current = messages.last_mut();
        match step {
            Step::More => {
                assert!(end < file.len(), "asks for more at the end");
                assert!(end - start < WINDOW_BYTES_MIN, "asks for too much");
                end = (end + chunks.next().unwrap()).min(file.len());
            }
            Step::Skip(len) => {
                assert!(!open && len > 0);
                start += len;
            }
            Step::Begin(len) => {
                assert!(!open);
                open = true;
                messages.push((file[start..start + len].to_vec(), Vec::new(), Vec::new()));
                start += len;
            }
            Step::Content(len) => {
                assert!(open && len > 0);
                current
                    .unwrap()
                    .1
                    .extend_from_slice(&file[start..start + len]);
                start += len;
            }
            Step::Suspect(len, why) => {
                let (_, content, notes) = current.unwrap();
                content.extend_from_slice(&file[start..start + len]);
                notes.push(format!("{why:?}"));
                start += len;
            }
            Step::Fault(fault) => current.unwrap().2.push(format!("{fault:?}")),
            Step::End => {
                assert!(open);
                open = false;
            }
            Step::Done => {
                assert_eq!(start, file.len());
                assert!(!open);
                return messages;
            }
        }
    }
}

/// Contents and notes, after making sure that a byte at a time gives the same as all at once.
fn read(file: &str, flavour: MboxFlavour) -> Vec<(String, Vec<String>)> {
    let whole = split(file.as_bytes(), flavour, &[file.len().max(1)]);
    assert_eq!(split(file.as_bytes(), flavour, &[1]), whole, "{file:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    whole
        .into_iter()
        .map(|(_, content, notes)| (text(content), notes))
        .collect()
}

fn contents(file: &str) -> Vec<String> {
    read(file, MboxFlavour::Rd)
        .into_iter()
        .map(|(content, _)| content)
        .collect()
}

#[test]
fn the_empty_line_belongs_to_the_separator() {
    let f = FROM_A;
    assert_eq!(
        contents(&format!("{f}A: b\n\nc\n\n{f}D: e\n\nf\n\n")),
        ["A: b\n\nc\n", "D: e\n\nf\n"]
    );
    assert_eq!(
        contents(&format!("{f}A: b\n\nc\n\n\n{f}D: e\n")),
        ["A: b\n\nc\n\n", "D: e\n"]
    );
    assert_eq!(contents(&format!("\n\n{f}A: b")), ["A: b"]);
    assert_eq!(contents(&format!("{f}\n{f}\n")), ["", ""]);
    assert_eq!(contents(f.trim_end()), [""]);
    assert_eq!(contents(""), [""; 0]);
    assert_eq!(contents("\n\n"), [""; 0]);
}

#[test]
fn crlf_files_split_alike() {
    let file = format!("{FROM_A}A: b\n\nc\n\n{FROM_A}D: e\n\n\nf\n\n").replace('\n', "\r\n");
    assert_eq!(
        contents(&file),
        ["A: b\r\n\r\nc\r\n", "D: e\r\n\r\n\r\nf\r\n"]
    );
}

#[test]
fn what_only_looks_like_a_separator_is_content_and_reported() {
    let file = format!("{FROM_A}A: b\n\nFrom here on\nFrom there\n{FROM_A}x\n");
    assert_eq!(
        read(&file, MboxFlavour::Rd),
        [(
            format!("A: b\n\nFrom here on\nFrom there\n{FROM_A}x\n"),
            vec!["Dateless".to_owned(), "NoEmptyLine".to_owned()]
        )]
    );
}

#[test]
fn content_length_governs_mboxcl2() {
    let body = format!("x\n\n{FROM_A}\n");
    let file = format!(
        "{FROM_A}Content-Length: {}\n\n{body}\n{FROM_A}content-length:0\n\n\n",
        body.len()
    );
    let messages = read(&file, MboxFlavour::Cl2);
    assert_eq!(
        messages,
        [
            (format!("Content-Length: {}\n\n{body}", body.len()), vec![]),
            ("content-length:0\n\n".to_owned(), vec![])
        ]
    );
}

#[test]
fn a_bad_content_length_hurts_its_own_message_only() {
    for (field, fault) in [
        ("", "NoContentLength"),
        ("Content-Length: x\n", "BadContentLength"),
        ("Content-Length:\n", "BadContentLength"),
        ("Content-Length: 1\nContent-Length: 2\n", "BadContentLength"),
        (
            "Content-Length: 99999999999999999999999\n",
            "BadContentLength",
        ),
        ("Content-Length: 1\n", "WrongContentLength"),
    ] {
        let file = format!("{FROM_A}A: b\n{field}\nbody\n\n{FROM_A}Content-Length: 3\n\nok\n\n");
        let messages = read(&file, MboxFlavour::Cl2);
        assert_eq!(messages.len(), 2, "{field}");
        assert_eq!(messages[0].1, [fault], "{field}");
        assert_eq!(
            messages[1],
            ("Content-Length: 3\n\nok\n".to_owned(), vec![]),
            "{field}"
        );
    }
    let file = format!("{FROM_A}Content-Length: 9\n\nok\n");
    assert_eq!(read(&file, MboxFlavour::Cl2)[0].1, ["Truncated(6)"]);
}

#[test]
fn an_endless_line_is_passed_on_in_pieces() {
    let line = "x".repeat(3 * WINDOW_BYTES_MIN);
    let file = format!("{FROM_A}A: {line}\n\n{line}\r\n\n{FROM_A}B: {line}");
    let want = [format!("A: {line}\n\n{line}\r\n"), format!("B: {line}")];
    for flavour in [MboxFlavour::Rd, MboxFlavour::O] {
        let messages = split(file.as_bytes(), flavour, &[1000]);
        assert!(
            messages
                .iter()
                .map(|m| &m.1)
                .eq(want.iter().map(String::as_bytes))
        );
    }
    let messages = split(file.as_bytes(), MboxFlavour::Cl2, &[1000]);
    assert_eq!(messages[0].2, ["NoContentLength"]);
}

/// Lines that matter to a splitter.
fn any_line() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "\r",
        "From me",
        FROM_A.trim_end(),
        ">From me",
        ">>From x",
        "text",
        "From ",
        "Fro",
        "Content-Length: 7",
    ])
    .prop_map(|line| format!("{line}\n"))
}

proptest! {
    #[test]
    fn quoting_and_splitting_are_inverse(
        bodies in prop::collection::vec(prop::collection::vec(any_line(), 0..8), 0..5),
        chunks in prop::collection::vec(1..40_usize, 1..20),
    ) {
        let mut file = String::new();
        let mut want = Vec::new();
        for body in &bodies {
            let mut content = "A: b\n\n".to_owned();
            for line in body {
                if line.trim_start_matches('>').starts_with("From ") {
                    content.push('>');
                }
                content.push_str(line);
            }
            file += &format!("{FROM_A}{content}\n");
            want.push((FROM_A.as_bytes().to_vec(), content.into_bytes(), vec![]));
        }
        prop_assert_eq!(split(file.as_bytes(), MboxFlavour::Rd, &chunks), want);
    }

    #[test]
    fn any_cut_gives_the_same(
        lines in prop::collection::vec(any_line(), 0..20),
        chunks in prop::collection::vec(1..40_usize, 1..20),
        flavour in prop::sample::select(vec![MboxFlavour::Rd, MboxFlavour::Cl2]),
    ) {
        let file = lines.concat();
        let whole = split(file.as_bytes(), flavour, &[file.len().max(1)]);
        prop_assert_eq!(split(file.as_bytes(), flavour, &chunks), whole);
    }
}
