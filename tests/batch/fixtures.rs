//! What is understood of the files in `fixtures/batch`: each has its reading beside it, in a `.txt` file.
//!
//! After a wished-for change, `UPDATE_FIXTURES=1 cargo test --test batch fixtures` writes the readings anew: read the diff.

use super::*;
use mailer::batch::{Inspected, inspect};
use std::fmt::Write;

#[test]
fn fixtures_read_as_written_beside_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/batch");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let mut reading = String::new();
        inspect(paths(&[&path]), options(), |inspected| {
            describe(&mut reading, &inspected);
        })
        .unwrap();
        let reading = reading.replace(dir.to_str().unwrap(), "fixtures/batch");
        let beside = path.with_extension("txt");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::write(&beside, &reading).unwrap();
        }
        let want = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(reading, want, "{}", path.display());
    }
}

fn describe(out: &mut String, inspected: &Inspected) {
    let Inspected {
        message,
        offset,
        bytes,
        reverse_path,
        sent_bytes,
        sha256,
        ..
    } = inspected;
    writeln!(out, "message {message} at {offset}, {bytes} bytes").unwrap();
    match reverse_path {
        Some(path) => writeln!(out, "  from <{path}>").unwrap(),
        None => writeln!(out, "  from nobody").unwrap(),
    }
    for recipient in &inspected.recipients {
        let mark = if recipient.problem.is_some() {
            "not to"
        } else {
            "to"
        };
        writeln!(out, "  {mark} <{}>", recipient.address).unwrap();
    }
    if let (Some(sent), Some(digest)) = (sent_bytes, sha256) {
        let bits = if inspected.eight_bit { 8 } else { 7 };
        writeln!(out, "  sent as {sent} bytes of {bits} bits, {digest}").unwrap();
    }
    for problem in &inspected.problems {
        writeln!(out, "  {problem}").unwrap();
    }
}
