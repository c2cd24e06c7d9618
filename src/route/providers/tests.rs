//! Whose hosts are whose, what replies mean, and that files fail for the expected reason.

use super::*;

fn of(hosts: &[&str]) -> Option<String> {
    let all = Providers::built_in();
    let found = all.of_hosts(hosts.iter().copied());
    found.map(|provider| provider.name.to_string())
}

#[test]
fn all_hosts_of_the_set_must_be_the_provider_s() {
    for (hosts, wanted) in [
        (
            &[
                "gmail-smtp-in.l.google.com",
                "alt1.gmail-smtp-in.l.google.com",
            ][..],
            Some("google"),
        ),
        (
            &["ASPMX.L.Google.com.", "aspmx2.googlemail.com"],
            Some("google"),
        ),
        (&["hotmail-com.olc.protection.outlook.com"], Some("outlook")),
        (
            &["example-org.mail.protection.outlook.com"],
            Some("office365"),
        ),
        (
            &["mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"],
            Some("yahoo"),
        ),
        // A backup server of one's own is a way that the provider knows nothing of.
        (&["aspmx.l.google.com", "backup.example.org"], None),
        (&["aspmx.l.google.com", "mx01.mail.icloud.com"], None),
        (&["protection.outlook.com"], None),
        (&["mx.notgoogle.com"], None),
        (&["google.com.example.org"], None),
        // The suffix itself is no host below it.
        (&["google.com"], None),
        (&["mx.example.org"], None),
        (&[""], None),
        (&[], None),
    ] {
        assert_eq!(of(hosts).as_deref(), wanted, "{hosts:?}");
    }
}

#[test]
fn the_figures_are_those_of_the_data_file() {
    let all = Providers::built_in();
    let figures = |name: &str| {
        let provider = all.named(name).unwrap();
        (
            provider.sessions,
            provider.messages_per_session,
            provider.expects_tls,
            provider.rolls_up,
        )
    };
    assert_eq!(figures("google"), (Some(5), Some(50), true, true));
    assert_eq!(figures("yahoo"), (Some(150), Some(20), false, true));
    assert_eq!(figures("mimecast"), (Some(10), Some(100), false, false));
    assert_eq!(figures("proton"), (None, None, false, true));
    let rate = all.named("free").unwrap().rate;
    assert_eq!(rate, Some("1/s".parse().unwrap()));
    assert!(all.named("any").is_none());
    assert!(all.iter().count() >= 15);
}

fn verdict(stage: Stage, code: u16, enhanced: Option<Enhanced>, text: &str) -> Verdict {
    Verdict::new(
        Status::Deferred,
        Scope::Message,
        stage,
        code,
        enhanced,
        text,
    )
}

fn judged(provider: &str, verdict: &Verdict) -> Option<Scope> {
    let all = Providers::built_in();
    all.judge(all.named(provider).map(|found| &**found), verdict)
}

#[test]
fn a_throttle_reply_is_known_by_its_code_or_its_words() {
    let slow = Some(Enhanced::new(4, 7, 28));
    let by_code = verdict(Stage::Dot, 421, slow, "our system has detected");
    assert_eq!(judged("google", &by_code), Some(Scope::Rate));
    assert_eq!(judged("apple", &by_code), None, "only Google says it so");
    assert_eq!(judged("", &by_code), None);
    let words = "4.7.0 [TSS04] Messages from 192.0.2.1 Temporarily Deferred";
    let by_words = verdict(Stage::Mail, 421, None, words);
    assert_eq!(judged("yahoo", &by_words), Some(Scope::Rate));
    assert_eq!(judged("google", &by_words), None);
    let greeting = verdict(Stage::Greeting, 421, None, "RATE LIMITED, come back");
    assert_eq!(judged("", &greeting), Some(Scope::Rate), "everybody's");
}

#[test]
fn what_a_greylist_says_to_rcpt_stays_about_the_recipient() {
    let greylist = verdict(Stage::Rcpt, 450, None, "4.7.1 server busy, greylisted");
    assert_eq!(judged("", &greylist), None);
    assert_eq!(judged("gmx", &greylist), None);
    let known = Some(Enhanced::new(4, 7, 650));
    let rcpt = verdict(Stage::Rcpt, 451, known, "4.7.650 slow down");
    assert_eq!(judged("outlook", &rcpt), Some(Scope::Rate));
}

#[test]
fn a_limit_of_the_session_is_one_only_where_the_session_carries_mail() {
    let words = "you have Exceeded the maximum number of connections";
    let at = |stage| judged("outlook", &verdict(stage, 421, None, words));
    assert_eq!(at(Stage::Mail), Some(Scope::Session));
    assert_eq!(at(Stage::Dot), Some(Scope::Session));
    assert_eq!(at(Stage::Greeting), None);
}

#[test]
fn only_deferrals_that_a_reply_is_behind_are_judged() {
    let mut known = verdict(Stage::Mail, 421, None, "rate limited");
    assert_eq!(judged("", &known), Some(Scope::Rate));
    known.code = 0;
    assert_eq!(judged("", &known), None);
    known.code = 550;
    assert_eq!(judged("", &known), None);
    known.code = 421;
    known.scope = Scope::Local;
    assert_eq!(judged("", &known), None);
    known.scope = Scope::Host;
    known.status = Status::InDoubt;
    assert_eq!(judged("", &known), None);
}

#[test]
fn a_file_of_the_user_s_goes_before_key_by_key_and_adds() {
    let text = "[google]\nsessions = 20\ntls = \"may\"\n[orange]\nmx = []\n\
        [local]\nmx = [\"mx1.example.org\", \".mail.example.org\"]\nthrottle = [{ text = \"Langsam\" }]\n";
    let all = Providers::with(text).unwrap();
    let google = all.of_hosts(["aspmx.l.google.com"]).unwrap();
    assert_eq!(
        (google.sessions, google.messages_per_session),
        (Some(20), Some(50))
    );
    assert!(!google.expects_tls);
    assert!(all.of_hosts(["smtp-in.orange.fr"]).is_none(), "taken out");
    let local = all.of_hosts(["mx1.example.org", "a.mail.example.org"]);
    assert_eq!(&*local.unwrap().name, "local");
    let slow = verdict(Stage::Dot, 450, None, "bitte langsam");
    assert_eq!(all.judge(local.map(|l| &**l), &slow), Some(Scope::Rate));
}

#[test]
fn what_cannot_be_used_says_why() {
    for (text, reason) in [
        ("[google]\nsession = 3\n", "unknown field `session`"),
        ("[x]\nmx = [\"a..b\"]\n", "is neither a host nor"),
        (
            "[x]\nmx = [\".google.com\"]\n",
            "claimed by google and by x",
        ),
        ("[x]\nsessions = 0\n", "would never send"),
        ("[x]\nthrottle = [{}]\n", "recognised by"),
        ("[x]\nthrottle = [{ text = \" \" }]\n", "recognised by"),
        ("[x]\nthrottle = [{ enhanced = \"5.7.1\" }]\n", "for now"),
        ("[x]\nthrottle = [{ enhanced = \"4.7\" }]\n", "for now"),
        ("[x]\nrate = \"fast\"\n", "a rate is written like"),
        ("[x]\ntls = \"verify\"\n", "unknown variant"),
        ("[\"a b\"]\nsessions = 1\n", "no name of a provider"),
        ("[any]\nsessions = 1\n", "replies only"),
        ("[x\n", ""),
    ] {
        let error = Providers::with(text).unwrap_err();
        assert!(error.message.contains(reason), "{text}: {error}");
    }
    let error = Providers::with("[google]\nsession = 3\n").unwrap_err();
    assert_eq!(error.at, Some(9));
}
