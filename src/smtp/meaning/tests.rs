//! The table, row by row, and the rules that hold in all of it.

use super::Awaited as A;
use super::Scope::{Host, Local, Message, Rate, Recipient, Session};
use super::Status::{Deferred, InDoubt, Refused};
use super::*;

const ALL: [Awaited; 16] = [
    A::Greeting,
    A::Ehlo,
    A::Helo,
    A::Lhlo,
    A::StartTls,
    A::Auth,
    A::Rset,
    A::Mail,
    A::Rcpt(0),
    A::Data,
    A::Body,
    A::Dot,
    A::DotFor(0),
    A::Bdat,
    A::LoneDot,
    A::Quit,
];

const AFTER_MAIL: Context = Context {
    messages_accepted: 3,
    recipients_accepted: 1,
    given_ahead: false,
    content_sent: false,
    by_chunk: false,
};

fn fresh(awaited: Awaited, code: u16) -> Meaning {
    of_reply(awaited, code, None, Context::default())
}

fn enhanced(awaited: Awaited, code: u16, subject: u16, detail: u16) -> Meaning {
    let status = Enhanced::new((code / 100) as u8, subject, detail);
    of_reply(awaited, code, Some(status), AFTER_MAIL)
}

#[test]
fn rows_of_the_opening() {
    assert_eq!(fresh(A::Greeting, 220), Meaning::Positive);
    assert_eq!(fresh(A::Greeting, 554), ends(Deferred, Host));
    assert_eq!(fresh(A::Greeting, 421), ends(Deferred, Host));
    assert_eq!(fresh(A::Ehlo, 502), Meaning::TryHelo);
    assert_eq!(fresh(A::Ehlo, 450), ends(Deferred, Host));
    assert_eq!(fresh(A::Ehlo, 421), ends(Deferred, Host));
    assert_eq!(fresh(A::Helo, 550), ends(Deferred, Host));
    assert_eq!(fresh(A::Lhlo, 500), ends(Deferred, Host));
    assert_eq!(fresh(A::StartTls, 220), Meaning::Positive);
    assert_eq!(fresh(A::StartTls, 454), failed(Deferred, Host));
    assert_eq!(fresh(A::StartTls, 502), failed(Deferred, Host));
    assert_eq!(fresh(A::StartTls, 334), ends(Deferred, Host));
}

#[test]
fn wrong_credentials_are_our_own_trouble() {
    assert_eq!(fresh(A::Auth, 235), Meaning::Positive);
    assert_eq!(fresh(A::Auth, 334), Meaning::Positive);
    assert_eq!(fresh(A::Auth, 454), failed(Deferred, Host));
    for code in [500, 504, 530, 534, 535, 538] {
        assert_eq!(fresh(A::Auth, code), failed(Deferred, Local));
    }
}

#[test]
fn a_chunk_is_refused_for_its_form_or_for_its_content() {
    let bdat = |code| of_reply(A::Bdat, code, None, AFTER_MAIL);
    assert_eq!(bdat(250), Meaning::Positive);
    assert_eq!(bdat(451), failed(Deferred, Message));
    assert_eq!(bdat(554), failed(Refused, Message));
    assert_eq!(bdat(354), ends(InDoubt, Message));
    for code in [500, 501, 502, 503, 504] {
        assert_eq!(bdat(code), ends(Deferred, Message));
    }
    for code in [450, 503, 554] {
        assert_eq!(fresh(A::Bdat, code), Meaning::Positive, "for nobody");
    }
    assert_eq!(fresh(A::Bdat, 500), ends(Deferred, Message));
    // While it is being sent.
    let early = Context {
        by_chunk: true,
        ..AFTER_MAIL
    };
    assert_eq!(of_reply(A::Body, 500, None, early), ends(Deferred, Message));
    assert_eq!(of_reply(A::Body, 552, None, early), ends(Refused, Message));
}

#[test]
fn a_recipient_of_lmtp_has_a_reply_of_its_own() {
    assert_eq!(fresh(A::DotFor(1), 250), Meaning::Positive);
    assert_eq!(fresh(A::DotFor(1), 452), failed(Deferred, Recipient));
    assert_eq!(fresh(A::DotFor(1), 552), failed(Refused, Recipient));
    assert_eq!(fresh(A::DotFor(1), 354), ends(InDoubt, Message));
}

#[test]
fn rows_of_a_transaction() {
    assert_eq!(fresh(A::Mail, 451), failed(Deferred, Message));
    assert_eq!(fresh(A::Mail, 550), failed(Refused, Message));
    assert_eq!(fresh(A::Mail, 503), failed(Refused, Message));
    assert_eq!(fresh(A::Rcpt(0), 251), Meaning::Positive);
    assert_eq!(fresh(A::Rcpt(0), 450), failed(Deferred, Recipient));
    assert_eq!(fresh(A::Rcpt(0), 550), failed(Refused, Recipient));
    assert_eq!(fresh(A::Data, 354), Meaning::Positive);
    assert_eq!(fresh(A::Data, 250), ends(Deferred, Host));
    assert_eq!(fresh(A::Data, 554), failed(Refused, Message));
    assert_eq!(fresh(A::Dot, 250), Meaning::Positive);
    assert_eq!(fresh(A::Dot, 552), failed(Refused, Message));
    assert_eq!(fresh(A::Dot, 354), ends(InDoubt, Message));
    assert_eq!(fresh(A::LoneDot, 554), Meaning::Positive);
    assert_eq!(fresh(A::Body, 552), ends(Refused, Message));
    assert_eq!(fresh(A::Body, 250), ends(Deferred, Host));
    assert_eq!(fresh(A::Rset, 500), ends(Deferred, Session));
}

#[test]
fn shutting_down_after_messages_is_a_limit_of_the_session() {
    for awaited in ALL {
        assert_eq!(fresh(awaited, 421), ends(Deferred, Host));
        assert_eq!(
            of_reply(awaited, 421, None, AFTER_MAIL),
            ends(Deferred, Session)
        );
    }
}

#[test]
fn policy_and_congestion_are_about_our_rate_but_for_a_recipient() {
    for awaited in [A::Mail, A::Data, A::Dot, A::Bdat] {
        assert_eq!(enhanced(awaited, 450, 7, 1), failed(Deferred, Rate));
        assert_eq!(enhanced(awaited, 451, 4, 5), failed(Deferred, Rate));
        assert_eq!(enhanced(awaited, 451, 4, 1), failed(Deferred, Message));
        assert_eq!(enhanced(awaited, 550, 7, 1), failed(Refused, Message));
    }
    assert_eq!(
        enhanced(A::Rcpt(0), 450, 7, 1),
        failed(Deferred, Recipient),
        "greylisting"
    );
}

#[test]
fn too_many_recipients_and_full_mailboxes_are_told_apart() {
    let full = Meaning::TooManyRecipients;
    assert_eq!(of_reply(A::Rcpt(1), 452, None, AFTER_MAIL), full);
    assert_eq!(of_reply(A::Rcpt(1), 552, None, AFTER_MAIL), full);
    assert_eq!(enhanced(A::Rcpt(1), 452, 5, 3), full);
    assert_eq!(enhanced(A::Rcpt(1), 552, 5, 3), full);
    assert_eq!(enhanced(A::Rcpt(1), 452, 2, 2), failed(Deferred, Recipient));
    assert_eq!(enhanced(A::Rcpt(1), 552, 2, 2), failed(Refused, Recipient));
    // The first recipient cannot be one too many: sending it again at once would never end.
    assert_eq!(fresh(A::Rcpt(0), 452), failed(Deferred, Recipient));
    assert_eq!(fresh(A::Rcpt(0), 552), failed(Deferred, Recipient));
}

#[test]
fn a_bad_sequence_is_not_held_against_mail_that_was_given_ahead() {
    let ahead = Context {
        given_ahead: true,
        ..AFTER_MAIL
    };
    assert_eq!(of_reply(A::Mail, 503, None, ahead), ends(Deferred, Session));
}

#[test]
fn rules_that_hold_in_every_row() {
    for awaited in ALL {
        for code in 200..600 {
            for context in [Context::default(), AFTER_MAIL] {
                let meaning = of_reply(awaited, code, None, context);
                let (Meaning::Failed(failure) | Meaning::Ends(failure)) = meaning else {
                    // Nothing but 2xx delivers, nothing but 3xx asks for content.
                    let hoped: &[u16] = match awaited {
                        A::Data => &[3],
                        A::Auth => &[2, 3],
                        _ => &[2],
                    };
                    let ignored = matches!(
                        (awaited, meaning),
                        (A::LoneDot | A::Bdat, _)
                            | (_, Meaning::TryHelo | Meaning::TooManyRecipients)
                    );
                    assert!(
                        hoped.contains(&(code / 100)) || ignored,
                        "{awaited:?} {code}"
                    );
                    continue;
                };
                let about_mail = awaited.is_final()
                    || matches!(awaited, A::Mail | A::Rcpt(_) | A::Data | A::Body);
                assert!(
                    failure.status != Refused || (about_mail && code / 100 == 5),
                    "only 5xx about mail refuses it: {awaited:?} {code}"
                );
                assert!(
                    failure.status != InDoubt || (awaited.is_final() && code / 100 == 3),
                    "{awaited:?} {code}"
                );
            }
        }
    }
}

#[test]
fn a_lost_connection_is_in_doubt_behind_the_content_alone() {
    for lost in [
        Lost::Eof,
        Lost::TimedOut,
        Lost::Reset,
        Lost::Other,
        Lost::Stopped,
    ] {
        for awaited in ALL {
            for context in [Context::default(), AFTER_MAIL] {
                let failure = of_loss(awaited, lost, context);
                assert_eq!(failure.status == InDoubt, awaited.is_final());
                let garbled = of_garbled(awaited, context);
                assert_eq!(garbled.status == InDoubt, awaited.is_final());
                let sent = Context {
                    content_sent: true,
                    ..context
                };
                assert_eq!(of_loss(awaited, lost, sent), IN_DOUBT);
                assert_eq!(of_garbled(awaited, sent), IN_DOUBT);
            }
        }
    }
    assert_eq!(of_loss(A::Mail, Lost::Eof, AFTER_MAIL).scope, Session);
    assert_eq!(of_loss(A::Mail, Lost::TimedOut, AFTER_MAIL).scope, Host);
    assert_eq!(of_loss(A::Mail, Lost::Stopped, AFTER_MAIL).scope, Local);
    assert_eq!(of_loss(A::Mail, Lost::Eof, Context::default()).scope, Host);
    assert_eq!(of_loss(A::Body, Lost::Reset, AFTER_MAIL).scope, Host);
}
