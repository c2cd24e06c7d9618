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
//! - When the content was written to its end and no intelligible reply to it came, nobody knows: in doubt.
//! - Credentials that are refused are refused for all mail: that is our own trouble, not the host's.
//!
//! Every combination has a row (a test walks through all); nothing here fails or panics.

mod sender;
mod wait;

pub use sender::is_about_sender;
pub use wait::{HINT_MAX, retry_hint};

use super::pipeline::Awaited;
use super::reply::Reply;
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
    /// The content has left to its end, and what became of it is not known yet.
    pub content_sent: bool,
    /// The content leaves by BDAT.
    pub by_chunk: bool,
}

/// What became known, and who is hurt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Deferred, refused or in doubt.
    pub status: Status,
    /// Who is hurt.
    pub scope: Scope,
}

/// Nobody knows whether the message was taken.
const IN_DOUBT: Failure = Failure {
    status: Status::InDoubt,
    scope: Scope::Message,
};

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
    /// We cut it ourselves, since the run is to end.
    Stopped,
}

impl Lost {
    /// For people: what happened to the connection.
    pub fn describe(self) -> &'static str {
        match self {
            Lost::Eof => "the server closed the connection",
            Lost::TimedOut => "timed out",
            Lost::Reset => "the connection was reset",
            Lost::Other => "the connection failed",
            Lost::Stopped => "this run was stopped",
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

        (A::Greeting | A::Ehlo | A::Helo | A::Lhlo | A::StartTls | A::Auth, _) => {
            of_opening(awaited, code)
        }

        // What was hoped for.
        (A::Data, 300..=399) => Meaning::Positive,
        (A::Data | A::Body, 200..=299) => ends(Deferred, Host),
        (_, 200..=299) => Meaning::Positive,

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

        // CHUNKING was offered, and BDAT is not understood: the content is going to be read as commands. Leave.
        (A::Bdat, 500 | 502) => ends(Deferred, Message),
        // RFC 3030 section 2: content for nobody is refused, and that says nothing.
        (A::Bdat, 400..=599) if context.recipients_accepted == 0 => Meaning::Positive,
        // It could not stand where it stood, or not in this form: by DATA the message may well be taken.
        (A::Bdat, 501 | 503 | 504) => ends(Deferred, Message),

        (A::Mail | A::Data | A::Dot | A::DotFor(_) | A::Bdat, 400..=499)
            if asks_to_slow_down(enhanced) =>
        {
            failed(Deferred, Rate)
        }
        // RFC 2033 4.2: this reply is about one recipient.
        (A::DotFor(_), 400..=499) => failed(Deferred, Recipient),
        (A::DotFor(_), 500..=599) => failed(Refused, Recipient),
        (A::Mail | A::Data | A::Dot | A::Bdat, 400..=499) => failed(Deferred, Message),
        (A::Mail | A::Data | A::Dot | A::Bdat, 500..=599) => failed(Refused, Message),

        // An early reply while the body is being sent is the reply to the dot; but where the server stands is unknown.
        (A::Body, 500..=504) if context.by_chunk => ends(Deferred, Message),
        (A::Body, 400..=499) if asks_to_slow_down(enhanced) => ends(Deferred, Rate),
        (A::Body, 400..=499) => ends(Deferred, Message),
        (A::Body, 500..=599) => ends(Refused, Message),

        // Not a reply that this command can get.
        _ if awaited.is_final() || context.content_sent => ends(InDoubt, Message),
        (_, _) => ends(Deferred, Host),
    }
}

/// What a reply means by the table, and by its text where that is known to say more: a greylist behind the content looks like
/// a complaint of our rate (451 4.7.1), and is about this message.
pub fn of_answer(awaited: Awaited, reply: &Reply, context: Context) -> Meaning {
    let meaning = of_reply(awaited, reply.code, reply.enhanced, context);
    let by_text = |failure: Failure| match failure.scope {
        Scope::Rate if tells_of_greylist(reply) => Failure {
            scope: Scope::Message,
            ..failure
        },
        _ => failure,
    };
    match meaning {
        Meaning::Failed(failure) => Meaning::Failed(by_text(failure)),
        Meaning::Ends(failure) => Meaning::Ends(by_text(failure)),
        other => other,
    }
}

fn tells_of_greylist(reply: &Reply) -> bool {
    let text = reply.text().to_ascii_lowercase();
    ["greylist", "graylist", "grey list", "gray list"]
        .iter()
        .any(|word| text.contains(word))
}

/// The rows of the opening; 421 has its own.
fn of_opening(awaited: Awaited, code: u16) -> Meaning {
    use Awaited as A;
    use Scope::{Host, Local};
    use Status::Deferred;
    match (awaited, code) {
        // A challenge, or success (RFC 4954 section 4).
        (A::Auth, 200..=399) => Meaning::Positive,
        (_, 200..=299) => Meaning::Positive,
        // RFC 4954 section 6: 4xx is the server's passing trouble; any 5xx says that these credentials will not do, for
        // this mail or any other.
        (A::Auth, 400..=499) => failed(Deferred, Host),
        (A::Auth, 500..=599) => failed(Deferred, Local),
        // What follows is the policy's business: in the clear, or not at all.
        (A::StartTls, 400..=599) => failed(Deferred, Host),
        // EHLO with 4xx must not lead to HELO: mail that needs an extension would be refused for good because of a passing
        // trouble.
        (A::Ehlo, 500..=599) => Meaning::TryHelo,
        // The host does not want to talk, or not in a way that this command can get; to 5xx see above.
        _ => ends(Deferred, Host),
    }
}

/// What the loss of the connection means while `awaited` was due.
pub fn of_loss(awaited: Awaited, lost: Lost, context: Context) -> Failure {
    let closed = matches!(lost, Lost::Eof | Lost::Reset);
    match awaited {
        // RFC 1047: the message may have been taken. Some servers drop the connection over content they dislike: the
        // message is the suspect, not the host.
        _ if awaited.is_final() || context.content_sent => IN_DOUBT,
        // Neither the mail nor the host is to blame.
        _ if lost == Lost::Stopped => Failure {
            status: Status::Deferred,
            scope: Scope::Local,
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
pub fn of_garbled(awaited: Awaited, context: Context) -> Failure {
    if awaited.is_final() || context.content_sent {
        return IN_DOUBT;
    }
    Failure {
        status: Status::Deferred,
        scope: Scope::Host,
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
mod tests;
