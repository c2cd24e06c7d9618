//! Postfix's `smtp-sink` misbehaves by flags: for each stage and each fault, what becomes of the mail, who is hurt, and the exit status.
//!
//! Each case has a sink of its own on a free port, and two recipients in one message to it. Retries lie beyond the end of the run, so
//! that the first verdict is the one reported. What is expected follows from RFC 5321 4.2 and 4.5.4, and the table in `smtp::meaning`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::run::{CLEAR, Row, Run, send};
use super::servers;

/// A fault, and what every recipient's row must say: status, code, class, stage; then the exit status of the run.
struct Case {
    sink: &'static str,
    status: &'static str,
    code: &'static str,
    class: &'static str,
    stage: &'static str,
    exit: i32,
}

const fn case(sink: &'static str, row: [&'static str; 4], exit: i32) -> Case {
    let [status, code, class, stage] = row;
    Case {
        sink,
        status,
        code,
        class,
        stage,
        exit,
    }
}

/// A reply that the sink accepts the message with.
const DELIVERED: [&str; 4] = ["delivered", "250", "recipient", "dot"];

/// Stage x what the sink does there: hangs up (-q), 421 and hangs up (-Q), 450 (-r), 500 (-f).
const STAGES: [Case; 32] = [
    case("-q CONNECT", ["deferred", "", "host", "greeting"], 75),
    case("-Q CONNECT", ["deferred", "421", "host", "greeting"], 75),
    case("-r CONNECT", ["deferred", "450", "host", "greeting"], 75),
    case("-f CONNECT", ["deferred", "500", "host", "greeting"], 75),
    case("-q EHLO", ["deferred", "", "host", "ehlo"], 75),
    case("-Q EHLO", ["deferred", "421", "host", "ehlo"], 75),
    case("-r EHLO", ["deferred", "450", "host", "ehlo"], 75),
    // RFC 5321 3.2: a server that does not know EHLO is greeted with HELO.
    case("-f EHLO", DELIVERED, 0),
    case("-f EHLO,HELO", ["deferred", "500", "host", "ehlo"], 75),
    case("-f EHLO -q HELO", ["deferred", "", "host", "ehlo"], 75),
    case("-q MAIL", ["deferred", "", "host", "mail"], 75),
    case("-Q MAIL", ["deferred", "421", "host", "mail"], 75),
    case("-r MAIL", ["deferred", "450", "message", "mail"], 75),
    case("-f MAIL", ["refused", "500", "message", "mail"], 1),
    case("-q RCPT", ["deferred", "", "host", "rcpt"], 75),
    case("-Q RCPT", ["deferred", "421", "host", "rcpt"], 75),
    case("-r RCPT", ["deferred", "450", "recipient", "rcpt"], 75),
    case("-f RCPT", ["refused", "500", "recipient", "rcpt"], 1),
    case("-q DATA", ["deferred", "", "host", "data"], 75),
    case("-Q DATA", ["deferred", "421", "host", "data"], 75),
    case("-r DATA", ["deferred", "450", "message", "data"], 75),
    case("-f DATA", ["refused", "500", "message", "data"], 1),
    // Behind the final dot nobody knows whether the server took it (RFC 1047).
    case("-q .", ["in-doubt", "", "message", "dot"], 75),
    case("-Q .", ["deferred", "421", "host", "dot"], 75),
    case("-r .", ["deferred", "450", "message", "dot"], 75),
    case("-f .", ["refused", "500", "message", "dot"], 1),
    // What happens to RSET and QUIT changes nothing for the mail.
    case("-f RCPT,RSET", ["refused", "500", "recipient", "rcpt"], 1),
    case(
        "-f RCPT -q RSET",
        ["refused", "500", "recipient", "rcpt"],
        1,
    ),
    case(
        "-f RCPT -Q RSET",
        ["refused", "500", "recipient", "rcpt"],
        1,
    ),
    case("-q QUIT", DELIVERED, 0),
    case("-Q QUIT", DELIVERED, 0),
    case("-f QUIT", DELIVERED, 0),
];

/// What the sink can do besides: announce less, say more, be late.
const MANNERS: [Case; 21] = [
    case("-p", DELIVERED, 0),
    case("-e", DELIVERED, 0),
    case("-P", DELIVERED, 0),
    case("-8", DELIVERED, 0),
    case("-E -N -a -C -F", DELIVERED, 0),
    case("-T 100", DELIVERED, 0),
    case("-H 1", DELIVERED, 0),
    case("-w 1", DELIVERED, 0),
    // LMTP's greeting is for LHLO: an SMTP client is refused.
    case("-L", ["deferred", "500", "host", "ehlo"], 75),
    case("-W CONNECT:9", ["deferred", "", "host", "greeting"], 75),
    case("-W EHLO:9", ["deferred", "", "host", "ehlo"], 75),
    // Without -p: the sink answers what stands behind a delayed command first.
    case("-p -W MAIL:9", ["deferred", "", "host", "mail"], 75),
    case("-p -W RCPT:9", ["deferred", "", "host", "rcpt"], 75),
    case("-p -w 9", ["deferred", "", "host", "data"], 75),
    case("-W .:9", ["in-doubt", "", "message", "dot"], 75),
    case("-W QUIT:9", DELIVERED, 0),
    // Replies of the sink's choice.
    case(
        "-r RCPT -b 452_4.2.2_full",
        ["deferred", "452", "recipient", "rcpt"],
        75,
    ),
    case(
        "-f RCPT -B 552_5.2.2_full",
        ["refused", "552", "recipient", "rcpt"],
        1,
    ),
    case(
        "-r MAIL -b 451_4.7.1_slowly",
        ["deferred", "451", "rate", "mail"],
        75,
    ),
    // Shutting down, and staying all the same.
    case(
        "-r RCPT -b 421_4.3.2_shutting_down",
        ["deferred", "421", "host", "rcpt"],
        75,
    ),
    case(
        "-f DATA -B 554_5.5.1_no_valid_recipients",
        ["refused", "554", "message", "data"],
        1,
    ),
];

#[test]
fn faults_at_each_stage() {
    check_all(&STAGES);
}

#[test]
fn less_announced_late_replies_and_odd_ones() {
    check_all(&MANNERS);
}

/// The sink sends 550 right behind 354 and reads no more. A small message has left by then, a large one is cut by the reset; the
/// reply counts in both cases.
#[test]
fn a_reply_that_comes_while_a_message_is_sent_is_read_and_used() {
    let Some(program) = servers::sink_program() else {
        return;
    };
    for lines in [1, 250_000] {
        let body = "A line of a message.\n".repeat(lines);
        let run = run_against("-A 0", &program, body.as_bytes());
        assert_eq!(run.status, 1, "{run}");
        let refused = |row: &Row| {
            [&row.status, &row.code, &row.class] == ["refused", "550", "message"]
                && ["body", "dot"].contains(&row.stage.as_str())
        };
        assert!(run.rows.iter().all(refused), "{run}");
    }
}

/// The rows of the matrix that a run can look at together: they mostly wait.
const AT_ONCE: usize = 8;

fn check_all(cases: &'static [Case]) {
    let Some(program) = servers::sink_program() else {
        return;
    };
    let left = Mutex::new(cases.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("no panic").next();
                    let Some(case) = next else { return };
                    if let Err(what) = check(case, &program) {
                        wrong.lock().expect("no panic").push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    println!("faults: {} cases", cases.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn check(case: &Case, program: &servers::SinkProgram) -> Result<(), String> {
    let run = run_against(case.sink, program, b"Hello.\n");
    match seen(&run, case) {
        true => Ok(()),
        false => Err(format!("{}: {run}", case.sink)),
    }
}

fn run_against(flags: &str, program: &servers::SinkProgram, body: &[u8]) -> Run {
    let sink = Sink::start(flags, program);
    let mut batch = Batch::new("fault");
    batch.add(&["a@fault.nodns.test", "b@fault.nodns.test"], body, body);
    let path = batch.write();
    let relay = sink.address.to_string();
    let flags = [
        "--relay",
        &relay,
        "--allow-loopback",
        "--timeout",
        "3s",
        "--dot-timeout",
        "3s",
        "--run-for",
        "2s",
    ];
    send(
        &[path.to_str().expect("a plain path")],
        &[&flags, CLEAR].concat(),
    )
}

fn seen(run: &Run, case: &Case) -> bool {
    let fits = |row: &Row| {
        [&row.status, &row.code, &row.class, &row.stage]
            == [case.status, case.code, case.class, case.stage]
    };
    run.status == case.exit && run.rows.len() == 2 && run.rows.iter().all(fits)
}

/// A running `smtp-sink`, ended with its case.
struct Sink {
    child: Child,
    address: SocketAddr,
}

impl Sink {
    /// Flags are separated by blanks; `_` stands for a blank in one.
    fn start(flags: &str, program: &servers::SinkProgram) -> Sink {
        for _ in 0..5 {
            let port = TcpListener::bind((address_of_its_own(), 0)).and_then(|l| l.local_addr());
            let address = port.expect("a free port");
            let child = command(flags, program, address).spawn().expect("smtp-sink");
            let mut sink = Sink { child, address };
            if sink.is_up() {
                return sink;
            }
        }
        panic!("smtp-sink {flags} does not come up");
    }

    /// Listens; false if it ended (somebody else took the port).
    fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that no other case uses: between the choice of a free port and the sink's hold on it, another sink could take
/// the port, and end while this one's mail is on its way.
fn address_of_its_own() -> Ipv4Addr {
    static SINKS: AtomicU16 = AtomicU16::new(0);
    let [high, low] = SINKS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = (std::process::id() % 100) as u8;
    Ipv4Addr::new(127, 100 + process, high, low.saturating_add(1))
}

fn command(flags: &str, program: &servers::SinkProgram, address: SocketAddr) -> Command {
    let mut command = Command::new(&program.path);
    command
        .env("LD_LIBRARY_PATH", &program.libraries)
        .args(flags.split(' ').map(|flag| flag.replace('_', " ")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // It refuses to run as root.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|of_us| of_us.uid() == 0);
    if is_root {
        command.args(["-u", "nobody"]);
    }
    command.arg(address.to_string()).arg("100");
    command
}
