//! Dialogues: the SMTP client engine against a model server, in all combinations that matter, judged by an oracle.
//!
//! A dialogue is a level of pipelining, a number of messages and recipients, and the class of every answer of the server.
//! The model (`dialogues/model.rs`) complains of anything a client must not do; the client (`dialogues/client.rs`) drives
//! the engine as a blocking driver would. The oracle (`dialogues/oracle.rs`) knows nothing of the engine: it reads the
//! model's record of what was answered, and how much of it the client has seen, and says how each recipient must have
//! ended.
//!
//! Connections are cut at every byte, runs stopped at every step, and replies come before they are due.
//!
//! The tree of answers is walked depth first: every sequence of answers that can be reached with at most so many of them
//! not good.

#[path = "dialogues/client.rs"]
mod client;
#[path = "dialogues/model.rs"]
mod model;
#[path = "dialogues/oracle.rs"]
mod oracle;
#[path = "dialogues/words.rs"]
mod words;

use client::{Plan, Record, run};
use mailer::smtp::Pipelining;
use oracle::{Due, fits, judge};
use words::{CLASSES, Class, Manner, Tls, What};

const LEVELS: [Pipelining; 3] = [Pipelining::None, Pipelining::Classic, Pipelining::Cross];

/// Walks all dialogues of `plan` with at most `faults_max` answers that are not good; how many they were.
fn walk(plan: &Plan, faults_max: usize) -> usize {
    let mut plan = plan.clone();
    let mut dialogues = 0;
    loop {
        let record = run(&plan);
        judge(&plan, &record);
        dialogues += 1;
        plan.script.resize(record.model.answers.len(), 0);
        let next = (0..plan.script.len()).rev().find(|&i| {
            let faults = plan.script[..i]
                .iter()
                .filter(|&&choice| choice > 0)
                .count();
            faults < faults_max && usize::from(plan.script[i]) + 1 < CLASSES.len()
        });
        let Some(next) = next else {
            return dialogues;
        };
        plan.script.truncate(next + 1);
        plan.script[next] += 1;
    }
}

fn plan(level: Pipelining, messages: usize, recipients: usize) -> Plan {
    Plan {
        level,
        manner: Manner::default(),
        recipients,
        messages,
        careless: false,
        script: Vec::new(),
        client_cut: None,
        server_cut: None,
        early: None,
        stop_at: None,
    }
}

#[test]
fn every_answer_at_every_stage() {
    let mut dialogues = 0;
    for level in LEVELS {
        for messages in 1..=3 {
            for recipients in 1..=3 {
                let faults_max = match (messages, recipients) {
                    (1, 1) => 7,
                    (1, 2) | (2, 1) => 3,
                    _ => 2,
                };
                for careless in [false, true] {
                    let plan = Plan {
                        careless,
                        ..plan(level, messages, recipients)
                    };
                    dialogues += walk(&plan, faults_max);
                }
            }
        }
    }
    println!("{dialogues} dialogues of replies in clear");
    assert!(dialogues > 100_000);
}

#[test]
fn the_connection_lost_at_every_byte() {
    let mut dialogues = 0;
    for level in LEVELS {
        for (messages, recipients) in [(1, 1), (2, 2), (3, 1)] {
            // Clean, with a refused recipient, and with a refused transaction before the others.
            for script in [vec![], vec![0, 0, 0, 2], vec![0, 0, 1]] {
                let plan = Plan {
                    script,
                    ..plan(level, messages, recipients)
                };
                dialogues += cut_everywhere(&plan);
            }
        }
    }
    for manner in every_kind() {
        for level in LEVELS {
            let plan = Plan {
                manner,
                ..plan(level, 2, 2)
            };
            dialogues += cut_everywhere(&plan);
        }
    }
    println!("{dialogues} dialogues of connections cut");
    assert!(dialogues > 10_000);
}

#[test]
fn a_stop_at_every_step() {
    let (mut dialogues, mut recalled, mut behind_354) = (0, 0, 0);
    for level in LEVELS {
        for (messages, recipients) in [(2, 1), (3, 2)] {
            // Clean, and with a trouble of each kind at each of the answers that a message given ahead may get.
            let troubles = (0..12).flat_map(|at| {
                (1..CLASSES.len() as u8).map(move |class| [vec![0; at], vec![class]].concat())
            });
            for script in std::iter::once(Vec::new()).chain(troubles) {
                let plan = Plan {
                    script,
                    ..plan(level, messages, recipients)
                };
                for step in 0..=run(&plan).steps {
                    let plan = Plan {
                        stop_at: Some(step),
                        ..plan.clone()
                    };
                    let record = run(&plan);
                    judge(&plan, &record);
                    dialogues += 1;
                    recalled += usize::from(record.recalled.is_some());
                    behind_354 += usize::from(is_recalled_behind_354(&record));
                }
            }
        }
    }
    println!("{dialogues} dialogues of runs stopped");
    println!("{recalled} recalled, {behind_354} of them behind 354");
    assert!(dialogues > 10_000 && recalled > 500 && behind_354 > 50);
}

#[test]
fn a_reply_before_the_content_in_every_transaction() {
    let earlies = [
        "552 5.3.4 too large",
        "452 4.3.1 no room",
        "421 4.3.2 bye",
        "250 2.0.0 queued",
        "354 go on",
        "what?",
        "",
    ];
    let mut dialogues = 0;
    for level in LEVELS {
        for (early, t) in earlies
            .into_iter()
            .flat_map(|early| (0..3).map(move |t| (early, t)))
        {
            let plan = Plan {
                early: Some((t, early)),
                ..plan(level, 3, 2)
            };
            dialogues += walk(&plan, 1);
            let record = run(&plan);
            assert!(record.model.early_end.is_some(), "{plan:?}");
            assert_eq!(record.model.accepted.len(), t, "{plan:?}");
            assert!(!record.transactions[t].body_sent && record.closed.is_some());
        }
    }
    println!("{dialogues} dialogues of replies before the content");
    assert!(dialogues > 1_000);
}

/// True if the client has recalled a message whose DATA it has seen answered as it should be.
fn is_recalled_behind_354(record: &Record) -> bool {
    record.recalled.is_some_and(|(t, _)| {
        let mut answers = record.model.answers.iter();
        answers.any(|answer| {
            let seen = answer.end.is_some_and(|end| end <= record.consumed);
            seen && answer.what == What::Data(t) && answer.class == Class::Good
        })
    })
}

/// One server of each kind.
fn every_kind() -> [Manner; 3] {
    let plain = Manner::default();
    [
        Manner {
            tls: Tls::Require,
            auth: Some(true),
            ..plain
        },
        Manner {
            lmtp: true,
            ..plain
        },
        Manner {
            chunking: true,
            tls: Tls::May,
            ..plain
        },
    ]
}

/// What servers can be like beside plain SMTP.
fn manners() -> Vec<Manner> {
    let mut manners = Vec::new();
    for tls in [Tls::May, Tls::Require, Tls::Broken, Tls::Missing, Tls::None] {
        for auth in [None, Some(false), Some(true)] {
            manners.push(Manner {
                tls,
                auth,
                ..Manner::default()
            });
        }
    }
    // The last one asks for nothing but EHLO: other tests have it.
    manners.retain(|manner| *manner != Manner::default());
    manners
}

#[test]
fn every_answer_of_an_opening_with_tls_and_auth() {
    let mut dialogues = 0;
    for manner in manners() {
        for level in [Pipelining::None, Pipelining::Cross] {
            let plan = Plan {
                manner,
                ..plan(level, 1, 1)
            };
            dialogues += walk(&plan, 2);
        }
    }
    println!("{dialogues} dialogues of openings with TLS and AUTH");
    assert!(dialogues > 5_000);
}

#[test]
fn every_answer_to_lmtp_and_to_chunks() {
    let lmtp = Manner {
        lmtp: true,
        ..Manner::default()
    };
    let chunking = Manner {
        chunking: true,
        ..Manner::default()
    };
    let mut dialogues = 0;
    for manner in [lmtp, chunking] {
        for level in LEVELS {
            for (messages, recipients, faults_max) in [(1, 1, 4), (1, 3, 2), (2, 1, 3), (2, 2, 2)] {
                for careless in [false, true] {
                    let plan = Plan {
                        manner,
                        careless,
                        ..plan(level, messages, recipients)
                    };
                    dialogues += walk(&plan, faults_max);
                }
            }
        }
    }
    println!("{dialogues} dialogues of LMTP and chunks");
    assert!(dialogues > 20_000);
}

/// Cuts the connection of `plan` at every byte of either side; how many dialogues that were.
fn cut_everywhere(plan: &Plan) -> usize {
    let whole = run(plan);
    for cut in 0..=whole.written {
        let plan = Plan {
            client_cut: Some(cut),
            ..plan.clone()
        };
        judge(&plan, &run(&plan));
    }
    for cut in 0..=whole.model.stream.len() {
        let plan = Plan {
            server_cut: Some(cut),
            ..plan.clone()
        };
        judge(&plan, &run(&plan));
    }
    whole.written + whole.model.stream.len() + 2
}

#[test]
fn round_trips_of_a_message_are_four_two_and_one() {
    for (level, each) in [
        (Pipelining::None, 4),
        (Pipelining::Classic, 2),
        (Pipelining::Cross, 1),
    ] {
        let record = run(&plan(level, 6, 1));
        let turns: Vec<usize> = record
            .flights
            .windows(2)
            .map(|two| two[1] - two[0])
            .collect();
        assert_eq!(turns, vec![each; 5], "{level:?}");
        assert_eq!(record.model.accepted.len(), 6);
    }
}

#[test]
fn by_chunks_a_message_takes_one_round_trip_even_the_first() {
    let chunking = Manner {
        chunking: true,
        ..Manner::default()
    };
    for level in [Pipelining::Classic, Pipelining::Cross] {
        let record = run(&Plan {
            manner: chunking,
            ..plan(level, 4, 2)
        });
        // EHLO is the first flight.
        assert_eq!(record.flights, [2, 3, 4, 5], "{level:?}");
        assert_eq!(record.model.accepted.len(), 4);
        assert!(record.transactions.iter().all(|t| t.by_chunk));
    }
}

#[test]
fn all_is_delivered_where_all_goes_well() {
    let kinds = every_kind().into_iter().chain([Manner::default()]);
    for (level, manner) in LEVELS
        .into_iter()
        .flat_map(|level| kinds.clone().map(move |kind| (level, kind)))
    {
        let record = run(&Plan {
            manner,
            ..plan(level, 3, 3)
        });
        let ends = record
            .transactions
            .iter()
            .flat_map(|transaction| &transaction.ends);
        let delivered = ends.filter(|end| fits(end, Due::Delivered, false)).count();
        assert_eq!(delivered, 9);
    }
}
