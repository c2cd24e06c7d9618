//! Reading batches from the outside: files, Maildirs and streams in; arrivals, content and clear errors out.

use mailer::batch::{
    BatchError, BatchReader, BatchStore, Content, ContentError, Input, Kept, ReadOptions,
};
use mailer::mail::{MessageNo, RecipientNo, Scope, Status};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod again;
mod bad;
mod damage;
mod fixtures;
mod job;
mod many;
mod named;
mod odd;
mod sources;

const FROM: &str = "From x@y.test Mon Jan  1 00:00:00 2024\n";
const DATE: &str = "Mon, 01 Jan 2024 00:00:00 +0000";

fn options() -> ReadOptions {
    ReadOptions::new(DATE.to_owned())
}

/// A directory with one file in it.
fn file(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn paths(paths: &[&Path]) -> Vec<Input> {
    paths
        .iter()
        .map(|path| Input::Path(path.to_path_buf()))
        .collect()
}

/// An arrival in text: the recipients (`!` and the problem for bad ones), and the problems.
struct Read1 {
    recipients: Vec<String>,
    problems: Vec<String>,
}

/// Reads everything, and makes sure that each mailbox can be had again from the loaded message.
fn read_all(
    inputs: Vec<Input>,
    options: ReadOptions,
) -> Result<(Arc<BatchStore>, Vec<Read1>), BatchError> {
    let store = Arc::new(BatchStore::new(options));
    let mut reader = BatchReader::open(inputs, store.clone())?;
    let mut content = Content::new();
    let mut all: Vec<Read1> = Vec::new();
    let mut rows = 0;
    while let Some(arrival) = reader.next_arrival()? {
        assert!(!arrival.recipients.is_empty());
        let loaded = store.load(arrival.message, &mut content);
        let mut texts = Vec::new();
        for arrived in arrival.recipients {
            assert_eq!(
                arrived.no,
                RecipientNo(rows),
                "recipients are numbered without gaps"
            );
            rows += 1;
            assert_eq!(store.message_of(arrived.no), Some(arrival.message));
            texts.push(match &arrived.outcome {
                Ok(mailbox) => {
                    assert!(loaded.is_ok(), "{loaded:?}");
                    assert_eq!(Some(content.reverse_path()), arrival.reverse_path);
                    assert_eq!(&store.mailbox(&content, arrived.no).unwrap(), mailbox);
                    assert_eq!(store.recipient_text(arrived.no), mailbox.as_str());
                    mailbox.to_string()
                }
                Err(problem) => {
                    assert!(!problem.is_warning());
                    format!("!{}", problem.what)
                }
            });
        }
        let problems = arrival.problems.iter().map(ToString::to_string);
        if arrival.message.index() < all.len() {
            let last = all.last_mut().unwrap();
            last.recipients.extend(texts);
            last.problems.extend(problems);
        } else {
            all.push(Read1 {
                recipients: texts,
                problems: problems.collect(),
            });
        }
    }
    assert_eq!(store.recipient_count(), rows as usize);
    assert_eq!(store.message_count(), all.len());
    Ok((store, all))
}

fn recipients(read: &[Read1]) -> Vec<Vec<&str>> {
    read.iter()
        .map(|message| message.recipients.iter().map(String::as_str).collect())
        .collect()
}

fn sent(store: &BatchStore, message: u32) -> String {
    let mut content = Content::new();
    store.load(MessageNo(message), &mut content).unwrap();
    String::from_utf8(content.bytes().to_vec()).unwrap()
}

fn error(inputs: Vec<Input>, options: ReadOptions) -> BatchError {
    read_all(inputs, options).map(|_| ()).unwrap_err()
}

/// Gives its pieces one by one and counts them.
struct Pieces(VecDeque<Vec<u8>>, Arc<AtomicUsize>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.0.pop_front() else {
            return Ok(0);
        };
        self.1.fetch_add(1, Ordering::Relaxed);
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        if len < piece.len() {
            self.0.push_front(piece.split_off(len));
        }
        Ok(len)
    }
}

fn stream(pieces: Vec<Vec<u8>>) -> (Vec<Input>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let reader = Pieces(pieces.into(), count.clone());
    (
        vec![Input::Stream("standard input".to_owned(), Box::new(reader))],
        count,
    )
}
