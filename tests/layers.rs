//! The layer rules, enforced: imports go down only, and what a layer must not contain is looked for.
//!
//! Each file of `src/` belongs to the layer of its first folder. A file may name rooms of its own layer and of the layers
//! below; words, formats and decisions must not touch I/O, threads or clocks; only the engine starts threads; nobody but
//! the face prints. The rules are about text, so comments and strings are cut away first.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom up, with their rooms.
const LAYERS: [(&str, &[&str]); 6] = [
    ("words", &["mail"]),
    ("formats", &["mbox", "smtp", "dkim", "bounce", "merge"]),
    ("decisions", &["route", "queue", "retry", "suppression"]),
    (
        "world",
        &[
            "net", "dns", "batch", "control", "ledger", "job", "hosts", "data",
        ],
    ),
    ("engine", &["engine"]),
    ("face", &["cli", "report", "progress", "sink"]),
];

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, rooms)| rooms.contains(&room))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file: no comments, no strings, and nothing from its test module on.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let line = match line.find("//") {
            Some(at) if !line[..at].contains('"') => &line[..at],
            _ => line,
        };
        let outside: Vec<&str> = line.split('"').step_by(2).collect();
        code.push_str(&outside.join("\"\""));
        code.push('\n');
    }
    code
}

/// Every file with its room, its path below `src/` and its code; tests and the crate roots left out.
fn sources() -> Vec<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut sources = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().display().to_string();
        if name == "lib.rs"
            || name == "main.rs"
            || name.ends_with("tests.rs")
            || name.contains("/tests/")
        {
            continue;
        }
        let room = name.split(['/', '.']).next().unwrap().to_owned();
        sources.push((room, name, code_of(&fs::read_to_string(&file).unwrap())));
    }
    assert!(sources.len() > 20, "the walk over src/ found too little");
    sources
}

/// The rooms that a file's code names: `crate::ROOM`, or the first words of `crate::{...}`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let end = group.find(';').unwrap_or(group.len());
            let words = group[..end].split(|c: char| !c.is_alphanumeric() && c != '_');
            rooms.extend(
                words
                    .filter(|word| layer_of(word).is_some())
                    .map(str::to_owned),
            );
        } else {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rooms.push(rest[..end].to_owned());
        }
    }
    rooms
}

#[test]
fn every_file_belongs_to_a_layer() {
    for (room, name, _) in sources() {
        assert!(
            layer_of(&room).is_some(),
            "src/{name} belongs to no layer: name its room in tests/layers.rs"
        );
    }
}

#[test]
fn imports_go_down_only() {
    for (room, name, code) in sources() {
        let own = layer_of(&room).unwrap_or(0);
        for named in rooms_named(&code) {
            let Some(other) = layer_of(&named) else {
                continue;
            };
            assert!(
                other <= own,
                "src/{name} ({}) names crate::{named} ({})",
                LAYERS[own].0,
                LAYERS[other].0
            );
        }
    }
}

fn assert_absent(words: &[&str], reason: &str, applies: impl Fn(&str, usize, &str) -> bool) {
    for (room, name, code) in sources() {
        if !applies(&room, layer_of(&room).unwrap_or(0), &name) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            // A field called `awaited` is no keyword.
            let line = line.replace(".awaited", "");
            for word in words {
                assert!(
                    !line.contains(word),
                    "src/{name}:{} has `{word}`: {reason}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn words_formats_and_decisions_do_no_io_and_know_no_clock_or_thread() {
    let words = [
        "std::net::Tcp",
        "std::net::Udp",
        "std::fs",
        "std::io::Read",
        "std::thread",
        "thread::spawn",
        "Instant::now",
        "SystemTime",
        "Mutex",
        "Condvar",
        "crossbeam",
        "Rng::new()",
    ];
    assert_absent(
        &words,
        "these layers take bytes, events and `now`",
        |_, layer, _| layer <= 2,
    );
}

#[test]
fn only_the_engine_the_resolver_and_the_embedded_receiver_start_threads() {
    let reason = "threads start in the engine (the resolver's driver and the test receiver aside)";
    assert_absent(
        &["thread::spawn", "thread::Builder", "thread::scope"],
        reason,
        |room, _, _| !["engine", "dns", "sink"].contains(&room),
    );
}

#[test]
fn only_the_face_prints() {
    let words = ["println!", "print!(", "dbg!", "io::stdout", "io::stderr"];
    assert_absent(
        &words,
        "results are values until the face shows them",
        |_, layer, _| layer < 5,
    );
}

#[test]
fn the_command_line_touches_no_socket_and_no_lock() {
    let words = ["TcpStream", "TcpListener", "UdpSocket", "Mutex", "RwLock"];
    assert_absent(&words, "sockets and locks live below", |room, _, _| {
        room == "cli"
    });
}

#[test]
fn the_mail_path_is_synchronous() {
    assert_absent(
        &["async fn", "async move", ".await", "#[tokio"],
        "threads block; no async",
        |_, _, _| true,
    );
    assert_absent(
        &["tokio::"],
        "only the resolver has a runtime",
        |room, _, _| room != "dns",
    );
}

/// The README's feature table names tests; each of them must exist.
#[test]
fn tests_named_in_the_readme_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let table = readme
        .split("## Features")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let named: Vec<(&str, &str)> = table
        .split('`')
        .filter_map(|word| word.split_once("::"))
        .collect();
    assert!(named.len() > 15, "the feature table names too few tests");
    for (module, test) in named {
        let path = root.join(format!("tests/delivery/{module}.rs"));
        let code = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            code.contains(&format!("fn {test}()")),
            "README names {module}::{test}, which does not exist"
        );
    }
}
