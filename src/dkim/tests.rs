use super::*;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::sign::Verifier;

/// The message of RFC 8463 A.3, signed with Ed25519.
const RFC_8463: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r
 subject : date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r
From: Joe SixPack <joe@football.example.com>\r
To: Suzie Q <suzie@shopping.example.net>\r
Subject: Is dinner ready?\r
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r
Message-ID: <20030712040037.46341.5F8J@football.example.com>\r
\r
Hi.\r
\r
We lost the game.  Are you hungry yet?\r
\r
Joe.\r
";
const RFC_8463_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// A verifier that shares only the canonical forms with the signer, and those are held against the RFCs' own examples.
fn is_valid(message: &[u8], which: usize, public: &PKey<Public>) -> bool {
    let (header, body) = canonical::split(message);
    let fields = canonical::fields(header);
    let own = fields[which];
    let text = String::from_utf8(own.to_vec()).unwrap();
    let value = text.split_once(':').unwrap().1;
    let tag = |name: &str| -> String {
        let tags = value.split(';').filter_map(|tag| tag.split_once('='));
        let (_, value) = tags
            .into_iter()
            .find(|(tag, _)| tag.trim() == name)
            .unwrap();
        value.split_whitespace().collect()
    };
    assert_eq!(tag("c"), "relaxed/relaxed");
    let mut hasher = Sha256::new();
    canonical::body(body, |part| hasher.update(part));
    if tag("bh") != STANDARD.encode(hasher.finalize()) {
        return false;
    }
    let (mut data, mut used) = (Vec::new(), vec![false; fields.len()]);
    for name in tag("h").split(':') {
        let at = (0..fields.len())
            .rev()
            .find(|at| !used[*at] && canonical::is_named(fields[*at], name));
        if let Some(at) = at {
            used[at] = true;
            canonical::field(fields[at], &mut data);
            data.extend_from_slice(b"\r\n");
        }
    }
    let at = text.rfind("b=").unwrap() + 2;
    canonical::field(&own[..at], &mut data);
    let signature = STANDARD.decode(tag("b")).unwrap();
    match public.id() {
        Id::ED25519 => {
            let mut verifier = Verifier::new_without_digest(public).unwrap();
            verifier
                .verify_oneshot(&signature, &Sha256::digest(&data))
                .unwrap()
        }
        _ => {
            let mut verifier = Verifier::new(MessageDigest::sha256(), public).unwrap();
            verifier.verify_oneshot(&signature, &data).unwrap_or(false)
        }
    }
}

/// The key that a record publishes.
fn published(record: &str) -> PKey<Public> {
    let public = STANDARD.decode(record.split_once("p=").unwrap().1).unwrap();
    match record.contains("k=ed25519") {
        true => PKey::public_key_from_raw_bytes(&public, Id::ED25519).unwrap(),
        false => PKey::public_key_from_der(&public).unwrap(),
    }
}

fn signer(domain: &str, kind: Kind) -> Signer {
    Signer {
        domain: Domain::parse(domain).unwrap(),
        selector: "s1".to_owned(),
        key: Key::generate(kind, 1024).unwrap(),
    }
}

fn signed(signers: &Signers, message: &str) -> (String, usize) {
    let signatures = signers
        .sign(message.as_bytes(), 1_528_637_909, &mut BodyHash::default())
        .unwrap();
    let count = signatures.matches("DKIM-Signature: ").count();
    (signatures + message, count)
}

/// The RFC's message without its signature.
fn plain() -> &'static str {
    &RFC_8463[RFC_8463.find("From:").unwrap()..]
}

#[test]
fn the_example_of_rfc_8463_verifies_and_nothing_else_does() {
    let public = published(&format!("k=ed25519; p={RFC_8463_PUBLIC}"));
    assert!(is_valid(RFC_8463.as_bytes(), 0, &public));
    for (from, to) in [
        ("hungry", "angry"),
        ("Joe.", "Joe!"),
        ("dinner ready", "dinner read"),
        ("joe@", "jim@"),
    ] {
        assert!(
            !is_valid(RFC_8463.replace(from, to).as_bytes(), 0, &public),
            "{from}"
        );
    }
    let spaced = RFC_8463
        .replace("game.  Are", "game. \t Are  ")
        .replace("Subject: Is", "SUBJECT \t:\r\n\t Is");
    assert!(!is_valid(
        spaced.replace("yet?", "yet ?").as_bytes(),
        0,
        &public
    ));
    let spaced = RFC_8463
        .replace("game.  Are", "game. \t Are")
        .replace("Subject: Is", "SUBJECT \t:\r\n\t Is");
    assert!(is_valid(
        (spaced + "\r\n \t\r\n\r\n").as_bytes(),
        0,
        &public
    ));
}

#[test]
fn the_examples_of_rfc_6376_3_4_5_have_their_canonical_form() {
    let message = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n";
    let (header, body) = canonical::split(message);
    let mut forms = Vec::new();
    for field in canonical::fields(header) {
        canonical::field(field, &mut forms);
        forms.extend_from_slice(b"\r\n");
    }
    assert_eq!(forms, b"a:X\r\nb:Y Z\r\n");
    let mut form = Vec::new();
    canonical::body(body, |part| form.extend_from_slice(part));
    assert_eq!(form, b" C\r\nD E\r\n");
    for (body, form) in [
        ("", ""),
        ("\r\n\r\n", ""),
        ("\r\n\r\na", "\r\n\r\na\r\n"),
        (" \r\n", ""),
        ("a \t b\t\r\n", "a b\r\n"),
        ("a b  c\r\n", "a b c\r\n"),
    ] {
        let mut made = Vec::new();
        canonical::body(body.as_bytes(), |part| made.extend_from_slice(part));
        assert_eq!(String::from_utf8(made).unwrap(), form, "{body:?}");
    }
}

#[test]
fn messages_are_signed_with_each_key_of_their_domain_and_both_verify() {
    let signers = Signers::new(vec![
        signer("football.example.com", Kind::Rsa),
        signer("football.example.com", Kind::Ed25519),
        signer("example.com", Kind::Rsa),
    ]);
    let (message, count) = signed(&signers, plain());
    assert_eq!(count, 2, "{message}");
    for (which, signer) in signers.iter().take(2).enumerate() {
        let public = published(&signer.key.record().unwrap());
        assert!(is_valid(message.as_bytes(), which, &public), "{message}");
        for name in [
            "From: Eve <eve@football.example.com>\r\n",
            "Cc: eve@x.example\r\n",
            "List-Unsubscribe: <https://x.example>\r\n",
        ] {
            let added = message.replacen("From: Joe", &format!("{name}From: Joe"), 1);
            assert!(!is_valid(added.as_bytes(), which, &public), "{name}");
        }
        let other = message.replacen("From: Joe", "X-Trace: 1\r\nFrom: Joe", 1);
        assert!(is_valid(other.as_bytes(), which, &public));
    }
    assert!(
        message.lines().take(20).all(|line| line.len() < 78),
        "{message}"
    );
}

#[test]
fn the_nearest_domain_above_signs_and_strangers_do_not() {
    let signers = Signers::new(vec![signer("example.com", Kind::Ed25519)]);
    let from = |from: &str| signed(&signers, &format!("{from}\r\n\r\nx\r\n")).1;
    assert_eq!(from("From: joe@football.example.com"), 1);
    assert_eq!(
        from("from:\r\n \"a, b@other.example\" <joe@Example.COM>"),
        1
    );
    assert_eq!(from("From: joe@notexample.com"), 0);
    assert_eq!(from("From: joe@com"), 0);
    assert_eq!(from("From: joe@example.com\r\nFrom: eve@x.example"), 0);
    assert_eq!(from("Subject: x"), 0);
    assert_eq!(from("From: undisclosed"), 0);
}

#[test]
fn a_body_hash_is_used_again_for_the_same_body_only() {
    let mut hash = BodyHash::default();
    let first = hash.of(b"a\r\n").to_owned();
    assert_eq!(hash.of(b"a\r\n"), first);
    assert_ne!(hash.of(b"b\r\n"), first);
    assert_eq!(
        BodyHash::default().of(b""),
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
}

#[test]
fn keys_are_told_from_what_is_none_and_never_shown() {
    let key = Key::generate(Kind::Rsa, 1024).unwrap();
    let again = Key::from_pem(&key.to_pem().unwrap()).unwrap();
    assert_eq!(again.record(), key.record());
    assert_eq!(format!("{again:?}"), "Key(rsa)");
    assert_eq!(Key::from_pem(b"x").unwrap_err(), KeyError::NotPem);
    let short = PKey::from_rsa(openssl::rsa::Rsa::generate(768).unwrap()).unwrap();
    assert_eq!(
        Key::from_pem(&short.private_key_to_pem_pkcs8().unwrap()).unwrap_err(),
        KeyError::Short(768)
    );
    let other = PKey::generate_x25519()
        .unwrap()
        .private_key_to_pem_pkcs8()
        .unwrap();
    assert_eq!(Key::from_pem(&other).unwrap_err(), KeyError::OtherKind);
    let secret = PKey::generate_ed25519().unwrap();
    let secret = secret
        .private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"x")
        .unwrap();
    assert_eq!(Key::from_pem(&secret).unwrap_err(), KeyError::NotPem);
}

proptest::proptest! {
    #[test]
    fn whatever_the_message_is_the_signature_verifies(text in "[ -~\\t\\r\\n]{0,300}", name in "(From|To|Subject|X)") {
        let text = text.replace('\r', "").replace('\n', "\r\n");
        let message = format!("From: a@b.example\r\n{name}: {text}\r\n\r\n{text}");
        let signers = Signers::new(vec![signer("b.example", Kind::Ed25519)]);
        let (message, count) = signed(&signers, &message);
        if count == 1 {
            let public = published(&signers.iter().next().unwrap().key.record().unwrap());
            proptest::prop_assert!(is_valid(message.as_bytes(), 0, &public));
        }
    }
}
