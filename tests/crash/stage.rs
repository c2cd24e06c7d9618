//! The batch of a round, the manners of its receivers, and what must become of each recipient.
//!
//! Messages are numbered from 1 as in `batch`; each has a body that nobody else's has, so that wrong mail is found out.

use std::collections::HashMap;

use mailer::sink::{Received, SinkConfig};

use crate::batch::{Batch, number_of};
use crate::lab::{Lab, keeping};

/// Domains of the batch: d00.test ... d39.test.
const DOMAINS: usize = 40;

/// Refused at RCPT, and at the final dot.
const REFUSED: [&str; 2] = ["@d03.test", "@d04.test"];
/// Takes its first messages and loses the replies.
const LOSSY: &str = "@d09.test";

/// What receivers do that makes life hard; the rest of the domains behave.
const RULES: [&str; 10] = [
    r#"domain=d01.test stage=rcpt reply="450 4.2.0 greylisted" first=20"#,
    r#"domain=d02.test stage=rcpt reply="451 4.7.1 later" chance=0.3"#,
    r#"domain=d03.test stage=rcpt reply="550 5.1.1 nobody of that name""#,
    r#"domain=d04.test stage=dot reply="554 5.7.1 not wanted""#,
    r#"domain=d05.test stage=data drop chance=0.1"#,
    r#"domain=d06.test stage=dot reply="451 4.3.0 try again" chance=0.2"#,
    "domain=d07.test stage=dot delay=20ms",
    "domain=d08.test stage=dot delay=150ms first=10",
    "domain=d09.test stage=dot lose-reply first=2",
    r#"stage=mail reply="421 4.3.2 closing" close chance=0.01"#,
];

/// One mail: a message and one of its recipients.
pub type Mail = (u64, String);

/// A batch and its receivers.
pub struct Stage {
    pub lab: Lab,
    pub batch: Batch,
    /// In the order of the batch, which is that of the report and of recipients' numbers.
    pub mails: Vec<Mail>,
    /// The number of each mail in `mails`.
    pub places: HashMap<Mail, usize>,
    salt: u64,
}

impl Stage {
    /// `singles` messages to one, and `many` to 30 each, for receivers of all manners.
    pub fn new(seed: u64, singles: usize, many: usize) -> Stage {
        let config = SinkConfig {
            seed,
            ..keeping(&RULES)
        };
        Stage::with(seed, singles, many, config)
    }

    /// The same, and whoever takes mail takes some time for it: a run lasts for seconds.
    pub fn slow(seed: u64, singles: usize, many: usize) -> Stage {
        let rules = [&RULES[..], &["stage=dot delay=10ms"]].concat();
        let config = SinkConfig {
            seed,
            ..keeping(&rules)
        };
        Stage::with(seed, singles, many, config)
    }

    /// The same for these receivers.
    pub fn with(seed: u64, singles: usize, many: usize, config: SinkConfig) -> Stage {
        let mut stage = Stage {
            lab: Lab::new("SYNTHETIC", config),
            batch: Batch::default(),
            mails: Vec::new(),
            places: HashMap::new(),
            salt: seed,
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        let every = (singles / many.max(1)).max(1);
        for n in 0..singles {
            stage.add(&[address(seed, n, rng.usize(..DOMAINS))]);
            if n % every == 0 && n / every < many {
                let people = (0..30).map(|k| address(seed, 100_000 + 30 * n + k, k * 7 % DOMAINS));
                stage.add(&people.collect::<Vec<_>>());
            }
        }
        stage
    }

    fn add(&mut self, people: &[String]) {
        let number = self.mails.last().map_or(1, |(number, _)| number + 1);
        let names: Vec<&str> = people.iter().map(String::as_str).collect();
        let body = body(self.salt, number, "\n");
        self.batch.add_with(&names, "", body.as_bytes());
        for one in people {
            let mail = (number, one.clone());
            self.places.insert(mail.clone(), self.mails.len());
            self.mails.push(mail);
        }
    }

    /// The number of the recipient of an accepted mail.
    ///
    /// # Panics
    /// If it is wrong mail: other bytes than the batch has for that number, or for somebody else.
    pub fn places_of<'a>(&'a self, taken: &'a Received) -> impl Iterator<Item = usize> + 'a {
        let number = number_of(&taken.content);
        let content = String::from_utf8_lossy(&taken.content);
        assert!(
            content.ends_with(&format!("\r\n\r\n{}", body(self.salt, number, "\r\n"))),
            "wrong bytes in message {number}: {content}"
        );
        taken.recipients.iter().map(move |one| {
            let mail = (number, one.clone());
            let place = self.places.get(&mail);
            *place.unwrap_or_else(|| panic!("message {number} is not for {one}"))
        })
    }

    /// The same messages for the same people with other words: nobody must get them.
    pub fn other_mail(&self) -> Vec<u8> {
        let text = String::from_utf8_lossy(self.batch.bytes());
        text.replace("this is ", "THIS IS ").into_bytes()
    }

    /// One for receivers that say yes after this time, if they say it at all.
    pub fn polite(seed: u64, messages: usize, delay: &str) -> Stage {
        let rule = format!("stage=dot delay={delay}");
        Stage::with(seed, messages, messages / 50, keeping(&[&rule]))
    }

    /// How often each mail was taken by the receivers of `lab`, which may have taken mail of other batches too.
    pub fn taken_at(&self, lab: &Lab) -> Vec<u32> {
        let mut taken = vec![0; self.mails.len()];
        let ours = format!("this is {}-", self.salt);
        for message in lab.sink.messages() {
            if String::from_utf8_lossy(&message.content).contains(&ours) {
                self.places_of(&message).for_each(|place| taken[place] += 1);
            }
        }
        taken
    }

    /// How many transactions the batch comes to if each succeeds at once, nearly.
    pub fn messages(&self) -> usize {
        self.mails.len()
    }

    /// True if the receivers refuse this mail for good.
    pub fn is_refused(&self, place: usize) -> bool {
        REFUSED
            .iter()
            .any(|domain| self.mails[place].1.ends_with(domain))
    }

    /// True if a receiver may have taken this mail without saying so.
    pub fn may_be_lossy(&self, place: usize) -> bool {
        self.mails[place].1.ends_with(LOSSY)
    }
}

fn address(salt: u64, person: usize, domain: usize) -> String {
    format!("p{person}-{salt}@d{domain:02}.test")
}

fn body(salt: u64, number: u64, line_end: &str) -> String {
    let mut text = format!("this is {salt}-{number}{line_end}");
    for line in 0..number % 40 {
        text.push_str(&format!("line {line} of message {number}{line_end}"));
    }
    text
}
