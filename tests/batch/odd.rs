//! Inputs that are not what they seem: pipes and sockets among the files of a Maildir, one file under two names.

use super::*;
use mailer::batch::BatchErrorKind;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// A Maildir of two good messages.
fn maildir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in ["new", "cur", "tmp"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    for name in ["1", "4"] {
        let text = format!("From: s@x.test\nTo: r{name}@x.test\n\nhello\n");
        fs::write(dir.path().join("new").join(name), text).unwrap();
    }
    dir
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs `work` on a thread of its own, so that a test can fail instead of hanging.
#[track_caller]
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    outcome
        .recv_timeout(Duration::from_secs(30))
        .expect("it hangs")
}

#[test]
fn what_is_no_file_in_a_maildir_is_a_row_and_holds_nobody_up() {
    let dir = maildir();
    let new = dir.path().join("new");
    make_fifo(&new.join("2"));
    let _socket = UnixListener::bind(new.join("3")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", new.join("5")).unwrap();
    std::os::unix::fs::symlink("1", new.join("6")).unwrap();
    let path = dir.path().to_path_buf();
    let read = in_time(move || read_all(paths(&[&path]), options()).unwrap().1);
    assert_eq!(
        recipients(&read).concat(),
        [
            "r1@x.test",
            "!cannot read: it is a FIFO, not a file",
            "!cannot read: it is a socket, not a file",
            "r4@x.test",
            "!cannot read: it is a device, not a file",
            "r1@x.test"
        ]
    );
    let place = format!("{}: message 2, line 1 (byte 0): ", new.join("2").display());
    assert!(
        read[1].problems[0].starts_with(&place),
        "{}",
        read[1].problems[0]
    );
}

#[test]
fn a_file_that_became_a_fifo_is_waited_for() {
    let dir = maildir();
    let (store, _) = read_all(paths(&[dir.path()]), options()).unwrap();
    let message = dir.path().join("new/1");
    fs::remove_file(&message).unwrap();
    make_fifo(&message);
    let loaded = in_time(move || store.load(MessageNo(0), &mut Content::new()));
    let error = loaded.unwrap_err();
    assert!(matches!(error, ContentError::Open(_)), "{error:?}");
    let said = "the batch file cannot be opened: it is a FIFO, not a file";
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_fifo_that_is_named_is_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    make_fifo(&path);
    let there = path.clone();
    let writer =
        std::thread::spawn(move || fs::write(there, format!("{FROM}To: a@x.test\n\nhi\n")));
    let read = in_time(move || read_all(paths(&[&path]), options()).unwrap().1);
    assert_eq!(recipients(&read), [["a@x.test"]]);
    writer.join().unwrap().unwrap();
}

#[test]
fn one_file_under_two_names_is_refused() {
    let (dir, path) = file("n.mbox", format!("{FROM}To: a@x.test\n\nhi\n"));
    let link = dir.path().join("m.mbox");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let twice = error(paths(&[&path, &path]), options());
    assert_eq!(twice.kind(), BatchErrorKind::DataErr);
    assert_eq!(
        twice.to_string(),
        format!("{}: is named twice", path.display())
    );
    let linked = error(paths(&[&path, &link]), options());
    assert_eq!(
        linked.to_string(),
        format!("{}: is the same file as {}", link.display(), path.display())
    );
    let maildir = maildir();
    let twice = error(paths(&[maildir.path(), maildir.path()]), options());
    assert!(twice.to_string().ends_with("is named twice"), "{twice}");
}
