//! The command line: what was typed becomes what it means, results become what a person reads.

pub mod args;
pub mod config;
pub mod exit;
