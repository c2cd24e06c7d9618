//! Flags that choose a part of the mail.

use clap::Args;

use crate::engine::portion::Portion;
use crate::mail::{Domain, Mailbox};

/// Which of the mail this run takes. It is not kept with the job: what is left is left for the next run.
#[derive(Args, Debug, Default, Clone)]
pub struct PartArgs {
    /// Take at most N recipients; the rest stays queued (exit status 75)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Take only recipients at DOMAIN (repeatable); the rest stays queued (exit status 75)
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub only: Vec<Domain>,
}

impl PartArgs {
    /// What it means.
    pub fn portion(&self) -> Portion {
        Portion::new(self.only.clone(), self.limit)
    }
}

/// Samples of a batch.
#[derive(Args, Debug, Default, Clone)]
pub struct SampleArgs {
    /// Send the first messages to ADDRESS instead, to see them as their readers would; no job is touched
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox, conflicts_with_all = ["job", "limit", "only", "again"])]
    pub test_to: Option<Mailbox>,
    /// How many, for --test-to
    #[arg(long, value_name = "N", default_value_t = 3, requires = "test_to", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub samples: u64,
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse_addr_spec(text.as_bytes()).map_err(|error| error.to_string())
}
