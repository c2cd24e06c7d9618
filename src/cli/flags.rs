//! The flags of a job, as its card keeps them: a run that goes on later, from another directory, reads and delivers the batch
//! as the first one did.
//!
//! INVARIANT: no secret is ever among them: credentials are named by their file, or come from the environment.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::args::{DeliveryArgs, ReadArgs};
use super::exit::{Exit, Failure};
use crate::job::JobCard;

/// What [`JobCard::flags`] holds.
#[derive(Serialize, Deserialize, Default, Debug, Clone)]
#[serde(default)]
pub struct JobFlags {
    /// How the batch is read.
    pub read: ReadArgs,
    /// How it is delivered.
    pub delivery: DeliveryArgs,
}

impl JobFlags {
    /// The flags of a run that was started in `cwd`: all paths are absolute in them.
    pub fn of(read: &ReadArgs, delivery: &DeliveryArgs, cwd: &Path) -> JobFlags {
        let mut flags = JobFlags {
            read: read.clone(),
            delivery: delivery.clone(),
        };
        let JobFlags { read, delivery } = &mut flags;
        let batch = read.batch.iter_mut().filter(|path| path.as_os_str() != "-");
        let named = [
            &mut read.to_file,
            &mut delivery.config,
            &mut delivery.credentials,
            &mut delivery.tls_ca,
            &mut delivery.tls_cert,
            &mut delivery.tls_key,
            &mut delivery.state,
        ];
        let lists = delivery.suppress.iter_mut();
        for path in batch.chain(named.into_iter().flatten()).chain(lists) {
            *path = cwd.join(&path);
        }
        flags
    }

    /// Puts on top what was typed for this run; what was not typed stays as it was.
    ///
    /// # Errors
    /// A bug: flags are always JSON.
    pub fn overlay(&mut self, typed: &DeliveryArgs) -> Result<()> {
        let unset = serde_json::to_value(DeliveryArgs::default())?;
        let mut stored = serde_json::to_value(&self.delivery)?;
        if let (Some(stored), serde_json::Value::Object(typed)) =
            (stored.as_object_mut(), serde_json::to_value(typed)?)
        {
            let is_typed =
                |(key, value): &(String, serde_json::Value)| unset.get(key) != Some(value);
            stored.extend(typed.into_iter().filter(is_typed));
        }
        self.delivery = serde_json::from_value(stored)?;
        Ok(())
    }

    /// For the card.
    ///
    /// # Errors
    /// A bug: flags are always JSON.
    pub fn to_value(&self) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// From a card.
    ///
    /// # Errors
    /// [`Exit::Data`]: the card holds no such flags.
    pub fn from_card(card: &JobCard) -> Result<JobFlags> {
        let flags = serde_json::from_value(card.flags.clone());
        flags.map_err(|error| {
            let text = format!("job {}: its card has no flags of a run: {error}", card.id);
            Failure::new(Exit::Data, text).into()
        })
    }
}

/// What of the flags changes the number of a message or the bytes that leave: a part of the batch's digest.
pub fn numbering(read: &ReadArgs) -> String {
    use clap::ValueEnum;
    let flavour = read.mbox.and_then(|flavour| flavour.to_possible_value());
    let flavour = flavour.as_ref().map_or("mboxrd", |value| value.get_name());
    let fold = if read.fold_long_lines { " fold" } else { "" };
    format!("{flavour}{fold}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn parsed(words: &[&str]) -> (ReadArgs, DeliveryArgs) {
        match Cli::try_parse_from(words).unwrap().command {
            Command::Send(args) => (args.read, args.delivery),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_come_back_from_a_card_with_absolute_paths() {
        let words = "mailer send b.mbox - --mbox mboxo --from a@b.test --to-file /to --fold-long-lines \
            --config c.toml --dns 127.0.0.1:53 --port 26 --relay r.test --tls verify --credentials s \
            --suppress gone.csv --suppress /lists/asked.csv --dsn-notify failure,delay --bind ::1 --run-for 50m --retry-min 300ms --max-workers 7";
        let words: Vec<&str> = words.split_whitespace().collect();
        let (read, delivery) = parsed(&words);
        let flags = JobFlags::of(&read, &delivery, Path::new("/home/a"));
        let value = flags.to_value().unwrap();
        let back: JobFlags = serde_json::from_value(value).unwrap();
        assert_eq!(format!("{back:?}"), format!("{flags:?}"));
        let batch: Vec<&str> = back
            .read
            .batch
            .iter()
            .filter_map(|at| at.to_str())
            .collect();
        assert_eq!(batch, ["/home/a/b.mbox", "-"]);
        assert_eq!(back.delivery.config, Some("/home/a/c.toml".into()));
        assert_eq!(back.read.to_file, Some("/to".into()));
        let lists = ["/home/a/gone.csv", "/lists/asked.csv"];
        assert_eq!(back.delivery.suppress, lists.map(std::path::PathBuf::from));
        assert_eq!(back.delivery.run_for.unwrap().as_secs(), 3000);
    }

    #[test]
    fn what_is_typed_for_a_run_wins_and_the_rest_stays() {
        let words = "mailer send b --relay old.test --port 26 --tls verify --sync";
        let (read, delivery) = parsed(&words.split(' ').collect::<Vec<_>>());
        let mut flags = JobFlags::of(&read, &delivery, Path::new("/"));
        let words = "mailer send b --relay new.test --relay other.test --run-for 5m";
        let (_, typed) = parsed(&words.split(' ').collect::<Vec<_>>());
        flags.overlay(&typed).unwrap();
        let delivery = flags.delivery;
        assert_eq!(delivery.relay, ["new.test", "other.test"]);
        assert_eq!((delivery.port, delivery.sync), (Some(26), true));
        assert_eq!(delivery.tls, Some(crate::cli::args::TlsMode::Verify));
        assert_eq!(delivery.run_for.unwrap().as_secs(), 300);
    }

    #[test]
    fn numbering_names_what_changes_bytes_and_nothing_else() {
        let of = |words: &[&str]| numbering(&parsed(&[&["mailer", "send", "b"], words].concat()).0);
        assert_eq!(of(&[]), of(&["--mbox", "mboxrd"]));
        assert_eq!(of(&[]), of(&["--from", "a@b.test", "--resend"]));
        assert_ne!(of(&[]), of(&["--mbox", "mboxo"]));
        assert_ne!(of(&[]), of(&["--fold-long-lines"]));
    }
}
