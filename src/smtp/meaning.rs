//! What each reply at each stage means: the one table.
//!
//! A reply hurts the host, the session, our rate, the message or one recipient, for now or for good. The dispatcher acts
//! on that, so a wrong row here is mail bounced because a host had a bad minute, or a host shunned because a mailbox was
//! full. Rows follow RFC 5321 and what long experience of other senders added:
//!
//! - Only the first digit counts, but for a few codes whose meaning is settled (RFC 5321 4.3.2).
//! - 421 ends the session whatever it answers (RFC 5321 3.8). After accepted messages it is the server's limit for one
//!   session, which is no fault of the host's.
//! - A 5xx greeting says "not now" about a host, never "no" about mail that it has not seen.
//! - A reply that is none of 2xx to 5xx, or that is of a kind its command cannot get, means that both ends no longer agree
//!   on where they are: the session ends, before replies are counted against the wrong mail.
//! - When the final dot was written and no intelligible reply to it came, nobody knows: in doubt.
//!
//! Every combination has a row (a test walks through all); nothing here fails or panics.

use super::pipeline::Awaited;
use crate::mail::{Enhanced, Scope, Status};

/// What surrounds a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// Messages that the server has taken in this session.
    pub messages_accepted: u32,
    /// Recipients that the server has taken in this transaction.
    pub recipients_accepted: usize,
    /// The command left with the final dot of the message before it.
    pub given_ahead: bool,
}

/// What became known, and who is hurt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Deferred, refused or in doubt.
    pub status: Status,
    /// Who is hurt.
    pub scope: Scope,
}

/// What a reply means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// What the command hoped for; or a reply that changes nothing.
    Positive,
    /// EHLO is not understood: try HELO (RFC 5321 3.2).
    TryHelo,
    /// The transaction is full: this recipient fits into another one (RFC 5321 4.5.3.1.10).
    TooManyRecipients,
    /// A failure that leaves the session usable.
    Failed(Failure),
    /// A failure after which the session is over.
    Ends(Failure),
}

/// How a connection failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The server closed it.
    Eof,
    /// A time limit of ours was over.
    TimedOut,
    /// It was reset.
    Reset,
    /// Anything else that reading or writing can report.
    Other,
}

impl Lost {
    /// For people: what happened to the connection.
    pub fn describe(self) -> &'static str {
        match self {
            Lost::Eof => "the server closed the connection",
            Lost::TimedOut => "timed out",
            Lost::Reset => "the connection was reset",
            Lost::Other => "the connection failed",
        }
    }
}

/// The table: what the reply `code` `enhanced` to `awaited` means. The first row that fits counts.
pub fn of_reply(
    awaited: Awaited,
    code: u16,
    enhanced: Option<Enhanced>,
    context: Context,
) -> Meaning {
    use Awaited as A;
    use Scope::{Host, Message, Rate, Recipient, Session};
    use Status::{Deferred, InDoubt, Refused};
    match (awaited, code) {
        // RFC 5321 3.8: the server shuts down, whatever we said. To QUIT and a lone dot it is as good as any reply.
        (_, 421) => ends(Deferred, session_or_host(context)),

        // What was hoped for.
        (A::Data, 300..=399) => Meaning::Positive,
        (A::Data | A::Body, 200..=299) => ends(Deferred, Host),
        (_, 200..=299) => Meaning::Positive,

        // The host does not want to talk; to 5xx see above. EHLO with 4xx must not lead to HELO: mail that needs an
        // extension would be refused for good because of a passing trouble.
        (A::Ehlo, 500..=599) => Meaning::TryHelo,
        (A::Greeting | A::Ehlo | A::Helo, 400..=599) => ends(Deferred, Host),

        // A server that cannot reset is in a state we do not know. Nobody's mail is to blame.
        (A::Rset | A::Quit, 400..=599) => ends(Deferred, Session),
        // RFC 2920 3.1: the reply to a dot for nobody says nothing.
        (A::LoneDot, 400..=599) => Meaning::Positive,

        // "Bad sequence" to a MAIL that came with the dot before it: the server cannot bear that, the message may.
        (A::Mail, 503) if context.given_ahead => ends(Deferred, Session),

        (A::Rcpt(_), 452 | 552) => recipient_limit(code, enhanced, context),
        // 4.7.x to RCPT is how greylisting looks: about this recipient (and sender), not about our rate.
        (A::Rcpt(_), 400..=499) => failed(Deferred, Recipient),
        (A::Rcpt(_), 500..=599) => failed(Refused, Recipient),

        (A::Mail | A::Data | A::Dot, 400..=499) if asks_to_slow_down(enhanced) => {
            failed(Deferred, Rate)
        }
        (A::Mail | A::Data | A::Dot, 400..=499) => failed(Deferred, Message),
        (A::Mail | A::Data | A::Dot, 500..=599) => failed(Refused, Message),

        // An early reply while the body is being sent is the reply to the dot; but where the server stands is unknown.
        (A::Body, 400..=499) if asks_to_slow_down(enhanced) => ends(Deferred, Rate),
        (A::Body, 400..=499) => ends(Deferred, Message),
        (A::Body, 500..=599) => ends(Refused, Message),

        // Not a reply that this command can get.
        (A::Dot, _) => ends(InDoubt, Message),
        (_, _) => ends(Deferred, Host),
    }
}

/// What the loss of the connection means while `awaited` was due.
pub fn of_loss(awaited: Awaited, lost: Lost, context: Context) -> Failure {
    let closed = matches!(lost, Lost::Eof | Lost::Reset);
    match awaited {
        // RFC 1047: the message may have been taken. Some servers drop the connection over content they dislike: the
        // message is the suspect, not the host.
        Awaited::Dot => Failure {
            status: Status::InDoubt,
            scope: Scope::Message,
        },
        // A server that has had enough of this session may just close it between transactions.
        Awaited::Mail | Awaited::Rset if closed => Failure {
            status: Status::Deferred,
            scope: session_or_host(context),
        },
        // RFC 5321 3.8: as if 451 had been received.
        _ => Failure {
            status: Status::Deferred,
            scope: Scope::Host,
        },
    }
}

/// What unintelligible bytes mean where the reply to `awaited` was due.
pub fn of_garbled(awaited: Awaited) -> Failure {
    match awaited {
        Awaited::Dot => Failure {
            status: Status::InDoubt,
            scope: Scope::Message,
        },
        _ => Failure {
            status: Status::Deferred,
            scope: Scope::Host,
        },
    }
}

/// A session that has carried messages hit a limit of its own; one that has not met a host in trouble.
pub fn session_or_host(context: Context) -> Scope {
    if context.messages_accepted > 0 {
        Scope::Session
    } else {
        Scope::Host
    }
}

/// 452 and 552 to RCPT: "too many recipients" (RFC 5321 4.5.3.1.10, which wants 552 taken as 452), unless the enhanced
/// status says that the mailbox is full. For the first recipient of a transaction it cannot mean that.
fn recipient_limit(code: u16, enhanced: Option<Enhanced>, context: Context) -> Meaning {
    let about_the_limit = match enhanced {
        None => true,
        // RFC 3463: x.0.0 says nothing, x.5.3 is "too many recipients".
        Some(enhanced) => matches!((enhanced.subject, enhanced.detail), (0, 0) | (5, 3)),
    };
    if about_the_limit && context.recipients_accepted > 0 {
        return Meaning::TooManyRecipients;
    }
    if about_the_limit || code == 452 {
        return failed(Status::Deferred, Scope::Recipient);
    }
    failed(Status::Refused, Scope::Recipient)
}

/// x.7.x (policy) and x.4.5 (congestion) in a 4xx to MAIL or the dot: how servers say "you send too fast" (RFC 3463).
fn asks_to_slow_down(enhanced: Option<Enhanced>) -> bool {
    enhanced.is_some_and(|enhanced| {
        enhanced.subject == 7 || (enhanced.subject == 4 && enhanced.detail == 5)
    })
}

fn failed(status: Status, scope: Scope) -> Meaning {
    Meaning::Failed(Failure { status, scope })
}

fn ends(status: Status, scope: Scope) -> Meaning {
    Meaning::Ends(Failure { status, scope })
}

#[cfg(test)]
mod tests {
    use super::Awaited as A;
    use super::Scope::{Host, Message, Rate, Recipient, Session};
    use super::Status::{Deferred, InDoubt, Refused};
    use super::*;

    const ALL: [Awaited; 11] = [
        A::Greeting,
        A::Ehlo,
        A::Helo,
        A::Rset,
        A::Mail,
        A::Rcpt(0),
        A::Data,
        A::Body,
        A::Dot,
        A::LoneDot,
        A::Quit,
    ];

    const AFTER_MAIL: Context = Context {
        messages_accepted: 3,
        recipients_accepted: 1,
        given_ahead: false,
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
        for awaited in [A::Mail, A::Data, A::Dot] {
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
                        let hoped = if awaited == A::Data { 3 } else { 2 };
                        let ignored = matches!(
                            (awaited, meaning),
                            (A::LoneDot, _) | (_, Meaning::TryHelo | Meaning::TooManyRecipients)
                        );
                        assert!(code / 100 == hoped || ignored, "{awaited:?} {code}");
                        continue;
                    };
                    let about_mail =
                        matches!(awaited, A::Mail | A::Rcpt(_) | A::Data | A::Body | A::Dot);
                    assert!(
                        failure.status != Refused || (about_mail && code / 100 == 5),
                        "only 5xx about mail refuses it: {awaited:?} {code}"
                    );
                    assert!(
                        failure.status != InDoubt || (awaited == A::Dot && code / 100 == 3),
                        "{awaited:?} {code}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_lost_connection_is_in_doubt_behind_the_dot_alone() {
        for lost in [Lost::Eof, Lost::TimedOut, Lost::Reset, Lost::Other] {
            for awaited in ALL {
                for context in [Context::default(), AFTER_MAIL] {
                    let failure = of_loss(awaited, lost, context);
                    assert_eq!(failure.status == InDoubt, awaited == A::Dot);
                    assert_eq!(of_garbled(awaited).status == InDoubt, awaited == A::Dot);
                }
            }
        }
        assert_eq!(of_loss(A::Mail, Lost::Eof, AFTER_MAIL).scope, Session);
        assert_eq!(of_loss(A::Mail, Lost::TimedOut, AFTER_MAIL).scope, Host);
        assert_eq!(of_loss(A::Mail, Lost::Eof, Context::default()).scope, Host);
        assert_eq!(of_loss(A::Body, Lost::Reset, AFTER_MAIL).scope, Host);
    }
}
