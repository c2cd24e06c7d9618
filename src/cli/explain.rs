//! x
use super::args::ExplainArgs;
use super::exit::Exit;
use anyhow::Result;
/// x
pub fn run(_args: &ExplainArgs) -> Result<Exit> {
    Ok(Exit::Done)
}
