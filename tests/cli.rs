//! The program as a user meets it: typed commands, exit statuses, and one clear line when something is wrong.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn mailer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailer"));
    command
        .args(arguments)
        .env("XDG_CONFIG_HOME", "/proc/nope")
        .env(
            "XDG_STATE_HOME",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/state"),
        );
    command.env("HOME", "/proc/nope").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    mailer(arguments).output().unwrap()
}

fn run_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = mailer(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts the exit status and that standard error holds `text`, and no panic.
#[track_caller]
fn assert_fails(output: &Output, status: i32, text: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(text), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn file(directory: &Path, name: &str, content: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

const MESSAGE: &str = "From: a@sender.example\nTo: b@receiver.example\nSubject: x\n\nhello\n";

#[test]
fn what_cannot_be_a_batch_is_refused_with_the_reason_and_a_status() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let state = dir.join("state").display().to_string();
    let send = |path: &str| run(&["send", "--state", &state, "--dns", "127.0.0.1:1", path]);
    assert_fails(
        &send("/nonexistent.mbox"),
        66,
        "/nonexistent.mbox: cannot open: No such file",
    );
    assert_fails(&send(&file(dir, "empty", b"")), 65, "is empty");
    let gz = file(dir, "it's.gz", b"\x1f\x8b\x08\x00junk");
    for command in ["send", "rehearse", "inspect"] {
        let quoted = gz.replace('\'', "'\\''");
        let hint = format!(
            "is gzip-compressed\nhint: decompress it first, for instance: zcat '{quoted}' | mailer {command} -\n"
        );
        assert_fails(&run(&[command, &gz]), 65, &hint);
    }
    assert_fails(
        &send(&file(dir, "junk", b"\x00\xff\x12junk\nand more\n")),
        65,
        "neither a From_ line nor a header",
    );
    assert_fails(&send(&dir.display().to_string()), 66, "no Maildir");
}

#[test]
fn what_is_typed_wrong_is_usage_and_says_what_is_near() {
    assert_fails(
        &run(&["send", "--max-worker", "3", "x"]),
        64,
        "--max-workers",
    );
    assert_fails(&run(&["sent", "x"]), 64, "send");
    assert_fails(
        &run(&["send", "--run-for", "soon", "x"]),
        64,
        "`soon` is not a time",
    );
    assert_fails(
        &run(&["send", "--from", "no address", "x", "--state", "/tmp"]),
        64,
        "--from no address",
    );
    assert_fails(
        &run(&["send", "-", "-", "--state", "/tmp"]),
        64,
        "only once",
    );
    assert_fails(
        &run(&["sink", "--listen", "192.0.2.1:25"]),
        64,
        "not an address of loopback",
    );
    assert_fails(
        &run(&["rehearse", "--rule", "stage=never", "x", "--state", "/tmp"]),
        64,
        "never",
    );
}

#[test]
fn a_wrong_configuration_is_told_with_file_and_line() {
    let scratch = tempfile::tempdir().unwrap();
    let path = file(
        scratch.path(),
        "c.toml",
        b"port = 25\n\n[retry]\nmni = \"5m\"\n",
    );
    assert_fails(
        &run(&["config", "--config", &path]),
        78,
        "c.toml:4:1: unknown field `mni`",
    );
    assert_fails(
        &run(&["config", "--config", &path]),
        78,
        "did you mean `min`",
    );
    let twice = b"[queue.a]\ndomains = [\"x.test\"]\n[queue.b]\ndomains = [\"x.test\"]\n";
    let path = file(scratch.path(), "d.toml", twice);
    let batch = file(scratch.path(), "b.eml", MESSAGE.as_bytes());
    let output = run(&["rehearse", "--config", &path, "--state", "/tmp", &batch]);
    assert_fails(
        &output,
        78,
        "\"x.test\" is claimed by queue \"a\" and by queue \"b\"",
    );
}

#[test]
fn a_state_directory_or_report_that_cannot_be_made_stops_before_anything_is_sent() {
    let scratch = tempfile::tempdir().unwrap();
    let batch = file(scratch.path(), "b.eml", MESSAGE.as_bytes());
    assert_fails(
        &run(&["send", "--state", "/proc/nope", &batch]),
        73,
        "/proc/nope: cannot make it",
    );
    let output = run(&[
        "rehearse",
        "--state",
        "/tmp",
        "--report",
        "/proc/nope/r.csv",
        &batch,
    ]);
    assert_fails(&output, 73, "/proc/nope/r.csv: cannot write the report");
}

#[test]
fn without_a_name_server_the_run_ends_soon_and_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let batch = file(scratch.path(), "b.eml", MESSAGE.as_bytes());
    let state = scratch.path().join("s").display().to_string();
    let report = scratch.path().join("r.csv").display().to_string();
    let arguments = [
        "send",
        "--state",
        &state,
        "--dns",
        "127.0.0.1:1",
        "--dns-timeout",
        "200ms",
        "--report",
        &report,
        &batch,
    ];
    assert_fails(&run(&arguments), 69, "no name server answers");
    let rows = std::fs::read_to_string(report).unwrap();
    assert!(
        rows.contains("1,b@receiver.example,deferred,,4.4.3,local,dns,"),
        "{rows}"
    );
}

#[test]
fn every_message_of_a_bad_batch_is_in_the_report() {
    let batch = "From x@y Thu Jan  1 00:00:00 2026\nFrom: a@s.example\nTo: b@r.example\n\nfine\n\n\
                 From x@y Thu Jan  1 00:00:00 2026\nFrom: a@s.example\n\nnobody\n\n\
                 From x@y Thu Jan  1 00:00:00 2026\nFrom: a@s.example\nTo: bad@@r.example, c@r.example\n\nhalf\n\n\
                 From x@y Thu Jan  1 00:00:00 2026\nReceived: by x\nFrom: a@s.example\nTo: d@r.example\n\ninbox\n";
    let output = run_with_input(&["rehearse", "--report", "-"], batch.as_bytes());
    assert_fails(&output, 1, "3 of 5 recipients failed");
    let report = stdout(&output);
    let statuses: Vec<String> = csv::Reader::from_reader(report.as_bytes())
        .records()
        .map(|row| row.unwrap())
        .map(|row| format!("{} {} {}", &row[0], &row[1], &row[2]))
        .collect();
    let expected = [
        "1 b@r.example delivered",
        "2  invalid",
        "3 bad@@r.example invalid",
        "3 c@r.example delivered",
        "4 d@r.example invalid",
    ];
    assert_eq!(statuses, expected, "{report}");
    assert!(
        stderr(&output).contains("message 3, line"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("--resend"), "{}", stderr(&output));
}

#[test]
fn a_rehearsal_with_receivers_that_enforce_limits_meets_them() {
    let batch: String = (0..6)
        .map(|n| {
            format!("From x@y Thu Jan  1 00:00:00 2026\nFrom: a@s.example\nTo: r{n}@r.example\n\nfine\n\n")
        })
        .collect();
    let output = run_with_input(
        &[
            "rehearse",
            "--report",
            "-",
            "--refuse-sessions",
            "1",
            "--refuse-messages",
            "2",
            "--greylist",
            "1ms",
            "--retry-min",
            "2ms",
        ],
        batch.as_bytes(),
    );
    let report = stdout(&output);
    let rows: Vec<csv::StringRecord> = csv::Reader::from_reader(report.as_bytes())
        .records()
        .map(|row| row.unwrap())
        .collect();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(rows.len(), 6, "{report}");
    for row in rows {
        let attempts: u32 = row[11].parse().unwrap();
        assert!(&row[2] == "delivered" && attempts >= 2, "{row:?}");
    }
}

#[test]
fn strict_refuses_the_whole_batch_before_anything_is_sent() {
    let output = run_with_input(
        &["rehearse", "--strict"],
        b"From: a@s.example\nTo: b@@r, c@r.example\n\nx\n",
    );
    assert_fails(
        &output,
        65,
        "--strict: 1 problem in the batch; nothing was sent",
    );
    assert_fails(&output, 65, "standard input: message 1, line 2");
    let output = run_with_input(&["rehearse", "--strict"], MESSAGE.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("delivered          1"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn inspect_shows_what_was_understood() {
    let text = run_with_input(&["inspect"], MESSAGE.as_bytes());
    assert_eq!(text.status.code(), Some(0), "{}", stderr(&text));
    let shown = stdout(&text);
    assert!(
        shown.contains("from <a@sender.example>\n    to   <b@receiver.example>\n    sends "),
        "{shown}"
    );
    assert!(
        shown.ends_with("1 message, 1 recipient, 0 problems, 0 warnings\n"),
        "{shown}"
    );
    let json = run_with_input(&["inspect", "--json"], MESSAGE.as_bytes());
    let value: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(value["reverse_path"], "a@sender.example");
    assert_eq!(value["recipients"][0]["address"], "b@receiver.example");
    assert_eq!(value["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn success_in_a_pipe_is_silent() {
    let scratch = tempfile::tempdir().unwrap();
    let report = scratch.path().join("r.csv").display().to_string();
    let output = run_with_input(
        &["rehearse", "--quiet", "--report", &report],
        MESSAGE.as_bytes(),
    );
    assert_eq!(
        (output.status.code(), stdout(&output), stderr(&output)),
        (Some(0), String::new(), String::new())
    );
    assert!(
        std::fs::read_to_string(report)
            .unwrap()
            .contains("1,b@receiver.example,delivered,250,")
    );
}

#[test]
fn config_prints_a_file_that_config_reads() {
    let first = run(&[
        "config",
        "--state",
        "/x",
        "--retry-min",
        "90s",
        "--relay",
        "mx.test:2525",
    ]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let scratch = tempfile::tempdir().unwrap();
    let path = file(scratch.path(), "c.toml", &first.stdout);
    let second = run(&["config", "--config", &path]);
    assert_eq!(stdout(&first), stdout(&second));
    assert!(stdout(&second).contains("min = \"90s\""));
}

#[test]
fn a_report_never_overwrites_what_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let batch = file(scratch.path(), "in.mbox", MESSAGE.as_bytes());
    assert_fails(
        &run(&["rehearse", &batch, "--report", &batch]),
        64,
        "would overwrite",
    );
    assert_eq!(std::fs::read_to_string(&batch).unwrap(), MESSAGE);
}

#[test]
fn the_report_of_another_day_is_kept_until_there_is_a_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    let report = file(scratch.path(), "r.csv", b"another day");
    let empty = file(scratch.path(), "empty", b"");
    assert_fails(
        &run(&["rehearse", "--report", &report, &empty]),
        65,
        "is empty",
    );
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "another day");
}

#[test]
fn outputs_that_cannot_be_written_never_end_in_a_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let batch = file(scratch.path(), "b.eml", MESSAGE.as_bytes());
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let to_full_stdout = mailer(&["rehearse", &batch])
        .stdout(full())
        .output()
        .unwrap();
    assert_fails(&to_full_stdout, 74, "cannot write to standard output");
    let to_full_stderr = mailer(&["rehearse", "--summary", &batch])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(to_full_stderr.status.code(), Some(0));
    let wrong = mailer(&["send", "/nonexistent"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(66));
    let report = run(&["rehearse", "--report", "/dev/full", &batch]);
    assert_fails(&report, 74, "the report could not be written");
    assert_fails(&report, 74, "1 delivered of 1 recipients");
}

#[test]
fn inspect_says_on_standard_error_that_something_is_wrong() {
    let output = run_with_input(&["inspect"], b"From: a@s.example\nTo: b@@r\n\nx\n");
    assert_fails(&output, 1, "1 problem in the batch");
}

#[test]
fn a_name_or_address_of_ours_that_cannot_be_used_is_found_before_anything_is_sent() {
    let scratch = tempfile::tempdir().unwrap();
    let batch = file(scratch.path(), "b.eml", MESSAGE.as_bytes());
    for name in ["a b", "", "x\r\nVRFY root"] {
        assert_fails(
            &run(&["rehearse", "--state", "/tmp", "--hello", name, &batch]),
            78,
            "our name for EHLO",
        );
    }
    let state = scratch.path().display().to_string();
    let output = run(&[
        "send",
        "--state",
        &state,
        "--dns",
        "127.0.0.1:1",
        "--bind",
        "192.0.2.1",
        &batch,
    ]);
    assert_fails(&output, 78, "bind 192.0.2.1");
}

#[test]
fn the_test_receiver_offers_what_it_is_told_to() {
    use std::io::{BufRead, BufReader};
    use std::net::TcpStream;
    let arguments = [
        "sink",
        "--listen",
        "127.0.0.1:0",
        "--tls=mx.a.test,mx.b.test",
        "--chunking",
    ];
    let sink = mailer(&arguments).stdout(Stdio::piped()).spawn();
    let mut sink = Running(sink.unwrap());
    let mut announced = String::new();
    let mut lines = BufReader::new(sink.0.stdout.take().unwrap());
    lines.read_line(&mut announced).unwrap();
    let address = announced.trim().strip_prefix("smtp ").unwrap();
    let mut client = BufReader::new(TcpStream::connect(address).unwrap());
    client.get_mut().write_all(b"EHLO a.test\r\n").unwrap();
    let mut offered = String::new();
    while !offered.ends_with("250 STARTTLS\r\n") {
        assert_ne!(client.read_line(&mut offered).unwrap(), 0, "{offered}");
    }
    assert!(offered.contains("250-CHUNKING\r\n"), "{offered}");
    client.get_mut().write_all(b"STARTTLS\r\n").unwrap();
    let mut reply = String::new();
    client.read_line(&mut reply).unwrap();
    assert!(reply.starts_with("220 "), "{reply}");
    let mut builder = native_tls::TlsConnector::builder();
    builder.danger_accept_invalid_certs(true);
    // The name is checked: the certificate is for those that were asked for.
    let connector = builder.build().unwrap();
    let stream = connector.connect("mx.b.test", client.into_inner()).unwrap();
    let shown = stream.peer_certificate().unwrap().unwrap();
    let shown = openssl::x509::X509::from_der(&shown.to_der().unwrap()).unwrap();
    let names = shown.subject_alt_names().unwrap();
    let names: Vec<_> = names.iter().filter_map(|name| name.dnsname()).collect();
    assert_eq!(names, ["mx.a.test", "mx.b.test"]);
}

/// A program that ends with its test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
