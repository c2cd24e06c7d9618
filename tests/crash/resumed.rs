//! Jobs that go on by `mailer resume`: what becomes of their batch and their card between a kill and the next run.

use std::path::{Path, PathBuf};

use crate::autopsy::Case;
use crate::job::Look;
use crate::run::{Run, ask, id};
use crate::stage::Stage;

/// What has become of a batch file when its job goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is as it was.
    Stays,
    /// It is not there while the job goes on for a while, and is back then.
    Removed,
    /// It holds another batch.
    Overwritten,
}

impl Fate {
    /// Lets it happen.
    pub fn befall(self, path: &Path, stage: &Stage) {
        match self {
            Fate::Stays => {}
            Fate::Removed => std::fs::remove_file(path).unwrap(),
            Fate::Overwritten => std::fs::write(path, stage.other_mail()).unwrap(),
        }
    }

    /// The exit status of a run that could not read on because of it.
    pub fn status(self) -> i32 {
        match self {
            Fate::Stays => 1,
            Fate::Removed => 66,
            Fate::Overwritten => 65,
        }
    }
}

/// From the next run of the job on, its journal is folded whenever it has grown to this.
pub fn fold_often(job: &Path, bytes: u64) {
    let path = job.join("job.json");
    let card = std::fs::read(&path).unwrap();
    let mut card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    card["flags"]["delivery"]["segment_bytes"] = bytes.into();
    let beside: PathBuf = job.join("job.json.new");
    std::fs::write(&beside, card.to_string()).unwrap();
    std::fs::rename(&beside, &path).unwrap();
}

/// The job goes on while its batch file is not there, and it is back then: who waits for it is not given up meanwhile.
pub fn go_on_without(stage: &Stage, case: &mut Case<'_>, job: &Path, look: &Look, path: &Path) {
    Fate::Removed.befall(path, stage);
    let ended = Run::resume_with(&stage.lab, Some(id(job)), &["--run-for", "300ms"]).wait();
    std::fs::write(path, stage.batch.bytes()).unwrap();
    let has = |status: &str| ended.rows.iter().any(|row| row.status == status);
    assert!(!has("invalid"), "{}", ended.stderr);
    if ["queued", "deferred", "in-doubt"].into_iter().any(has) {
        let pending = if look.is_read_to_end {
            75
        } else {
            Fate::Removed.status()
        };
        assert_eq!(ended.status, pending, "{}", ended.stderr);
        let is_told = ended.stderr.contains("could not be copied: keep the batch");
        assert!(is_told, "{}", ended.stderr);
    }
    case.went_by(job);
}

/// A person finds out about everybody in doubt, and says so: who has it is not sent to again, who has not is.
pub fn settle_doubts(stage: &Stage, case: &mut Case<'_>, job: &Path, in_doubt: &[String]) {
    let taken = case.taken();
    let place = |address: &String| {
        let found = stage.mails.iter().position(|(_, one)| one == address);
        found.expect("somebody of the batch")
    };
    let (arrived, lost): (Vec<&String>, Vec<&String>) = in_doubt
        .iter()
        .partition(|address| taken[place(address)] > 0);
    for (what, people) in [("--delivered", arrived), ("--resend", lost)] {
        if people.is_empty() {
            continue;
        }
        let named = people.iter().flat_map(|one| ["--to", one.as_str()]);
        let arguments: Vec<&str> = [id(job), what].into_iter().chain(named).collect();
        let said = ask(&stage.lab, "settle", &arguments);
        let count = format!(": {} recipient", people.len());
        assert!(said.contains(&count), "{said}");
    }
    case.settled(job, in_doubt.iter().map(place));
}
