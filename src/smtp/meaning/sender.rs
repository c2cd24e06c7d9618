//! Which refusals are about us - our authentication, our address, our name - and would hit every message to the site.
//!
//! The codes that no RFC has are those of two large receivers. Where they are listed, and which code is from where:
//!
//! 1. Google, "Gmail SMTP errors and codes": <https://support.google.com/a/answer/3726730>
//! 2. Google, "Email sender guidelines FAQ": <https://support.google.com/a/answer/14229414>
//! 3. Microsoft, "Email non-delivery reports and SMTP errors in Exchange Online":
//!    <https://learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online/non-delivery-reports-in-exchange-online>
//! 4. Microsoft, "Fix NDR error 550 5.7.515 in Outlook.com":
//!    <https://support.microsoft.com/outlook/fix-ndr-error-550-5-7-515-in-outlook-com>
//! 5. listed nowhere: replies of Outlook.com's servers, as many senders quote them; they point to <https://postmaster.live.com>
//!
//! Receivers change their codes: one that is not known here only means that the site is not stopped for it.

use crate::mail::Enhanced;

/// True if a reply with this code and enhanced status complains of the sender as such: of SPF, DKIM, DMARC, reverse DNS
/// or the reputation of our address. What one message meets here the next one will meet too, so the site is better left
/// alone, and somebody told.
///
/// Only settled details of x.7.x (security or policy, RFC 3463 3.8) count. 5.7.1 alone is used for everything, from
/// a content filter to a closed mailing list: it is not taken for such a complaint. Without an enhanced status there is
/// nothing to go by.
pub fn is_about_sender(code: u16, enhanced: Option<Enhanced>) -> bool {
    let Some(enhanced) = enhanced else {
        return false;
    };
    if !(400..=599).contains(&code)
        || u16::from(enhanced.class) != code / 100
        || enhanced.subject != 7
    {
        return false;
    }
    match enhanced.detail {
        // RFC 7372: DKIM (20 to 22), SPF (23, 24), reverse DNS (25), several of them (26); RFC 7505 4.2: the sender's
        // domain has a null MX (27). Google [1, 2] has 23 for reverse DNS that is missing or does not lead back, and 27
        // for SPF: both are about us all the same.
        20..=27 => true,
        // Google: no DKIM signature that holds (30), no DMARC policy (31 in [2], 40 in [1]), From aligned with neither SPF
        // nor DKIM (32). RFC 8689 has 30 for REQUIRETLS, which we never ask for. Left out: 28, a rate that asks for
        // patience, and 29, a session without TLS.
        30..=32 | 40 => true,
        // Microsoft [3]: the sending account is banned (501 to 503), EHLO with the receiver's own name (506), our address is
        // blocked by the recipient's organization (507, 513), DMARC with a policy of reject (509), our address is banned
        // (511). [4]: not authenticated as is asked of large senders (515). Left out: 504 and 505 (one recipient), 508 (a
        // rate), 510 (no IPv6 there), 512 (a message without a valid From).
        501..=503 | 506 | 507 | 509 | 511 | 513 | 515 => true,
        // Microsoft [3]: our address is on its block list (606 to 649); [5]: limited for its reputation (650, 651).
        606..=651 => true,
        // Microsoft [3]: the tenant we send through is over its threshold (705) or banned (708), or the domain is not
        // registered with it (750); the domain of EHLO, MAIL or From is banned (800). Left out: 703 (one recipient).
        705 | 708 | 750 | 800 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: u16, subject: u16, detail: u16) -> bool {
        let class = (code / 100) as u8;
        is_about_sender(code, Some(Enhanced::new(class, subject, detail)))
    }

    #[test]
    fn complaints_of_our_authentication_and_reputation_count() {
        for detail in [
            20, 23, 25, 26, 27, 30, 31, 32, 40, 501, 503, 506, 507, 509, 511, 513, 515, 606, 649,
            651, 705, 708, 750, 800,
        ] {
            assert!(says(550, 7, detail), "5.7.{detail}");
            assert!(says(421, 7, detail), "4.7.{detail}");
        }
    }

    #[test]
    fn what_may_be_about_one_message_or_one_mailbox_does_not() {
        for detail in [
            0, 1, 2, 7, 8, 19, 28, 29, 33, 39, 41, 500, 504, 505, 508, 510, 512, 514, 605, 652,
            703, 999,
        ] {
            assert!(!says(550, 7, detail), "5.7.{detail}");
        }
        assert!(!says(550, 1, 26) && !says(250, 7, 26));
        assert!(!is_about_sender(550, None));
        assert!(!is_about_sender(550, Some(Enhanced::new(4, 7, 26))));
    }
}
