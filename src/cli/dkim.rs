//! `mailer dkim`: keys are made, and it is said what to publish.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;

use super::args::{DkimCommand, DkimName, KeygenArgs, RecordArgs};
use super::config;
use super::exit::{Exit, Failure};
use super::say;
use crate::dkim::Key;

/// A string of a TXT record holds so many octets (RFC 1035 3.3).
const TXT_OCTETS_MAX: usize = 255;

/// Runs the command.
///
/// # Errors
/// A [`Failure`]: names that cannot stand in the DNS, a key that cannot be made, read or written.
pub fn run(command: &DkimCommand) -> Result<Exit> {
    match command {
        DkimCommand::Keygen(args) => keygen(args),
        DkimCommand::Record(args) => record(args),
    }
}

fn keygen(args: &KeygenArgs) -> Result<Exit> {
    check(&args.name)?;
    let key = Key::generate(args.kind.kind(), args.bits);
    let key = key.map_err(|error| Failure::new(Exit::Usage, format!("--bits: {error}")))?;
    let DkimName { domain, selector } = &args.name;
    let default = format!("{selector}.{domain}.pem");
    let file = args.out.clone().unwrap_or_else(|| default.into());
    let pem = key.to_pem()?;
    write_new(&file, &pem)?;
    let file = std::path::absolute(&file)?;
    let record = record_text(&args.name, &key)?;
    say::to_stdout(&format!(
        "The private key is in {file}. Publish this in the DNS:\n\n{record}\nThen sign with it, in mailer.toml:\n\n[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey = {file:?}\n",
        file = file.display(),
    ))?;
    Ok(Exit::Done)
}

fn record(args: &RecordArgs) -> Result<Exit> {
    check(&args.name)?;
    let key = config::dkim::private_key(&args.key)?;
    say::to_stdout(&record_text(&args.name, &key)?)?;
    Ok(Exit::Done)
}

fn check(name: &DkimName) -> Result<()> {
    config::dkim::domain(&name.domain)?;
    config::dkim::selector(&name.selector).map(drop)
}

/// A line of a zone file.
fn record_text(name: &DkimName, key: &Key) -> Result<String> {
    let value = key.record()?;
    let strings: Vec<String> = value
        .as_bytes()
        .chunks(TXT_OCTETS_MAX)
        .map(|part| format!("\"{}\"", String::from_utf8_lossy(part)))
        .collect();
    let DkimName { domain, selector } = name;
    Ok(format!(
        "{selector}._domainkey.{domain}. IN TXT ( {} )\n",
        strings.join(" ")
    ))
}

/// A file for its owner alone; one that is there is never overwritten, since its key may be in use.
fn write_new(path: &Path, pem: &[u8]) -> Result<()> {
    let shown = path.display();
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let fail = |error: std::io::Error| {
        let failure = Failure::new(
            Exit::CantCreate,
            format!("{shown}: cannot write the key: {error}"),
        );
        match error.kind() {
            ErrorKind::AlreadyExists => failure
                .hint("choose another selector or --out: a key is never overwritten".to_owned()),
            _ => failure,
        }
    };
    let mut file = opened.map_err(fail)?;
    file.write_all(pem)
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    Ok(())
}
