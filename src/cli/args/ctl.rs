//! What is typed to control a job that runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StateArgs;

/// `mailer ctl`.
#[derive(Args, Debug)]
#[command(subcommand_precedence_over_arg = true)]
pub struct CtlArgs {
    /// The state directory [default: mailer in the XDG state directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// Configuration file, which may name the state directory
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The job; without it, the only one that runs
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// What to do [default: show]
    #[command(subcommand)]
    pub order: Option<CtlOrder>,
}

impl CtlArgs {
    /// Where jobs are.
    pub fn state(&self) -> StateArgs {
        StateArgs {
            state: self.state.clone(),
            config: self.config.clone(),
        }
    }
}

/// The orders.
#[derive(Subcommand, Clone, Debug)]
pub enum CtlOrder {
    /// Show queues, the busiest sites and totals
    Show(CtlShow),
    /// Change limits: mailer ctl set QUEUE max-workers=N max-sessions=N rate=R, or set DOMAIN max-sessions=N rate=R
    Set {
        /// A queue, a domain (its servers are meant), or 'all'
        #[arg(value_name = "QUEUE|DOMAIN")]
        target: String,
        /// max-workers=N, max-sessions=N, rate=R ('600/min', '100/s'; 'none' for no limit)
        #[arg(value_name = "KEY=VALUE", required = true)]
        limits: Vec<String>,
    },
    /// Attempt nothing more of a queue's or domain's mail, or of any, until it is resumed
    Pause {
        /// A queue or a domain
        #[arg(value_name = "QUEUE|DOMAIN")]
        target: Option<String>,
    },
    /// Go on with it; without a name, with all that is paused
    Resume {
        /// A queue or a domain
        #[arg(value_name = "QUEUE|DOMAIN")]
        target: Option<String>,
    },
    /// Give the servers of a domain a queue of their own
    Promote {
        /// Which
        domain: String,
    },
    /// Give them back to the general queue
    Demote {
        /// Which
        domain: String,
    },
    /// Leave a domain's mail pending for this run
    Drop {
        /// Which
        domain: String,
    },
    /// Settle a domain's mail as refused
    Fail {
        /// Which
        domain: String,
        /// What the report says of it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Stop the run in order: transactions under way end, what is pending stays so (as SIGTERM)
    Stop,
}

/// `mailer ctl show`.
#[derive(Args, Clone, Debug, Default)]
pub struct CtlShow {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// Again every second, until the run ends
    #[arg(long, short)]
    pub watch: bool,
    /// How many sites at most [default: 20]
    #[arg(long, value_name = "N")]
    pub sites: Option<u32>,
}
