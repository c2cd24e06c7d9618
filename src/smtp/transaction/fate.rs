//! What the replies to a transaction's content make of its recipients.
//!
//! INVARIANT: a recipient is delivered only by a 2xx to the content that was for it (RFC 5321 4.2.5).

use super::{Standing, Transaction, verdict_of};
use crate::mail::{Scope, Status, Verdict};
use crate::smtp::meaning::{self, Context, Failure, Meaning};
use crate::smtp::pipeline::Awaited;
use crate::smtp::reply::Reply;

impl Transaction {
    /// The reply to the content by BDAT: for those accepted the verdict, for others an echo.
    pub(super) fn on_bdat(&mut self, meaning: Meaning, reply: &Reply) {
        let positive = reply.code / 100 == 2;
        self.chunk_refused = !positive;
        if self.accepted == 0 || (self.failure.is_some() && !positive) {
            return;
        }
        let verdict = self.fate(meaning, Awaited::Bdat, reply);
        for standing in &mut self.standings {
            if matches!(standing, Standing::Accepted) {
                *standing = Standing::Settled(verdict.clone());
            }
        }
    }

    /// What the reply to the content's end makes of those it is for.
    pub(super) fn fate(&mut self, meaning: Meaning, awaited: Awaited, reply: &Reply) -> Verdict {
        let failure = match meaning {
            Meaning::Failed(failure) => failure,
            // RFC 5321 4.2.5: from here on the server is responsible.
            _ => {
                self.taken = true;
                Failure {
                    status: Status::Delivered,
                    scope: Scope::Recipient,
                }
            }
        };
        verdict_of(failure, awaited, reply)
    }

    /// A reply that ends the session: the verdict of everybody who is not settled.
    pub(super) fn on_end_of_session(
        &mut self,
        failure: Failure,
        awaited: Awaited,
        reply: &Reply,
    ) -> Verdict {
        let verdict = verdict_of(failure, awaited, reply);
        if failure.status == Status::InDoubt {
            self.distrust();
        }
        let Awaited::DotFor(i) = awaited else {
            return verdict;
        };
        self.standings[i] = Standing::Settled(verdict.clone());
        let mut others = self.standings.iter();
        if !others.any(|standing| matches!(standing, Standing::Accepted)) {
            return verdict;
        }
        // This reply was about one recipient. Those behind it have none, and the content was there for them too.
        let doubt = meaning::of_garbled(awaited, Context::default());
        Verdict {
            status: doubt.status,
            scope: doubt.scope,
            ..verdict
        }
    }
}
