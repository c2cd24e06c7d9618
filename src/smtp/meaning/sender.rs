//! Which refusals are about us - our authentication, our address, our name - and would hit every message to the site.

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
        // domain has a null MX (27).
        20..=27 => true,
        // Google: no DKIM signature that holds (30), From not aligned (32), no DMARC record (40). RFC 8689 has 30 for
        // REQUIRETLS, which we never ask for.
        30 | 32 | 40 => true,
        // Microsoft: DMARC (509), sender banned (511), not authenticated as asked of large senders (515).
        509 | 511 | 515 => true,
        // Microsoft: our address is on its block list (606 to 649), or limited for its reputation (650, 651).
        606..=651 => true,
        // Microsoft: low reputation of the address (708), domain not registered with the tenant (750).
        708 | 750 => true,
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
        for detail in [20, 23, 25, 26, 27, 30, 40, 509, 515, 606, 649] {
            assert!(says(550, 7, detail), "5.7.{detail}");
            assert!(says(421, 7, detail), "4.7.{detail}");
        }
    }

    #[test]
    fn what_may_be_about_one_message_or_one_mailbox_does_not() {
        for detail in [0, 1, 2, 7, 8, 19, 28, 29, 31, 500, 510, 512, 605, 652, 999] {
            assert!(!says(550, 7, detail), "5.7.{detail}");
        }
        assert!(!says(550, 1, 26) && !says(250, 7, 26));
        assert!(!is_about_sender(550, None));
        assert!(!is_about_sender(550, Some(Enhanced::new(4, 7, 26))));
    }
}
