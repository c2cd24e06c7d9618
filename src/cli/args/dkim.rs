//! Flags of `mailer dkim`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::dkim::Kind;

/// What `mailer dkim` does.
#[derive(Subcommand, Debug)]
pub enum DkimCommand {
    /// Make a private key, and show what to publish and to configure
    Keygen(KeygenArgs),
    /// Show what to publish for a key that is there
    Record(RecordArgs),
}

/// Where a key is published.
#[derive(Args, Debug)]
pub struct DkimName {
    /// The domain in the From field of the mail
    #[arg(long, value_name = "DOMAIN")]
    pub domain: String,
    /// The key's name among those of the domain, as in s2026
    #[arg(long, value_name = "NAME")]
    pub selector: String,
}

/// Flags of `dkim keygen`.
#[derive(Args, Debug)]
pub struct KeygenArgs {
    /// Where it is published.
    #[command(flatten)]
    pub name: DkimName,
    /// What key
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value = "rsa")]
    pub kind: KeyType,
    /// Bits of an RSA key
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1024..=4096))]
    pub bits: u32,
    /// The file to write [default: SELECTOR.DOMAIN.pem]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Flags of `dkim record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// Where it is published.
    #[command(flatten)]
    pub name: DkimName,
    /// The private key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// Kinds of keys on the command line.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum KeyType {
    /// RSA: every receiver knows it
    Rsa,
    /// Ed25519: short and fast; receivers that do not know it pass it over
    Ed25519,
}

impl KeyType {
    /// The key's kind.
    pub fn kind(self) -> Kind {
        match self {
            KeyType::Rsa => Kind::Rsa,
            KeyType::Ed25519 => Kind::Ed25519,
        }
    }
}
