//! Templates and rows, and the messages that they make, read back by a parser.

use std::sync::Arc;

use mail_parser::{MessageParser, MimeHeaders, PartType};
use serde_json::{Value as Json, json};

use super::*;

fn options() -> Options {
    Options {
        job: Some("news".into()),
        seed: "news".into(),
        date: "Tue, 24 Nov 2026 08:00:00 +0000".into(),
        key: None,
        verp: None,
        token_key: None,
    }
}

fn files(main: &str, text: &str, others: &[(&str, &str)]) -> Files {
    let own = [(main, text)];
    let all = others.iter().chain(&own);
    Files {
        main: main.into(),
        bytes: all
            .map(|(name, text)| ((*name).to_owned(), Arc::from(text.as_bytes())))
            .collect(),
    }
}

fn row(values: Json) -> Row {
    let Json::Object(object) = values else {
        panic!("an object is wanted");
    };
    Row {
        columns: Arc::new(Columns::new(object.keys().cloned()).unwrap()),
        values: object.into_iter().map(|(_, value)| value).collect(),
        number: 7,
    }
}

fn template(main: &str, text: &str) -> Template {
    Template::compile(files(main, text, &[]), options()).unwrap()
}

fn ann() -> Row {
    row(json!({"email": "ann@example.com", "name": "Ann", "points": 12}))
}

fn text(composed: &Composed) -> String {
    String::from_utf8(composed.message.clone()).unwrap()
}

#[track_caller]
fn refused(template: &str, values: Json) -> RowError {
    let compiled = Template::compile(files("t.txt", template, &[]), options()).unwrap();
    compiled.compose(row(values)).unwrap_err()
}

const PLAIN: &str = "From: News <news@example.org>\nTo: {{ name }} <{{ email }}>\nSubject: Hello {{ name }}\n\nYou have {{ points }} points.\n";

#[test]
fn a_row_becomes_a_message_and_always_the_same() {
    let composed = template("t.txt", PLAIN).compose(ann()).unwrap();
    let want = "From: \"News\" <news@example.org>\r\nTo: \"Ann\" <ann@example.com>\r\nSubject: Hello Ann\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <";
    let got = text(&composed);
    assert!(got.starts_with(want), "{got}");
    assert!(
        got.contains("@example.org>\r\n") && got.ends_with("\r\n\r\nYou have 12 points.\r\n"),
        "{got}"
    );
    assert_eq!(composed.reverse_path.as_str(), "news@example.org");
    assert_eq!(composed.recipients[0].as_str(), "ann@example.com");
    assert_eq!(composed.key, "ann@example.com");
    let again = template("t.txt", PLAIN).compose(ann()).unwrap();
    assert_eq!(again, composed);
    let mut other = options();
    other.seed = "other".into();
    let other = Template::compile(files("t.txt", PLAIN, &[]), other).unwrap();
    assert_ne!(
        other.compose(ann()).unwrap().message,
        composed.message,
        "another job, another Message-ID"
    );
}

#[test]
fn no_value_adds_a_field_an_address_or_a_recipient() {
    let values = |name: &str, email: &str| json!({"email": email, "name": name, "points": 1});
    for (bad_name, bad) in [
        ("Ann\r\nBcc: x@evil.example", "name"),
        ("Ann\nX: y", "name"),
        ("Ann\u{0}", "name"),
    ] {
        let error = refused(PLAIN, values(bad_name, "ann@example.com"));
        assert_eq!(error.column.as_deref(), Some(bad), "{error}");
    }
    for bad in [
        "a@b.example, x@evil.example",
        "a@b.example> RCPT TO:<x@evil.example",
        "a@b.example\r\nRCPT TO:<x@evil.example>",
        "a@b.example>, <x@evil.example",
        "<x@evil.example>",
        "",
        "ann",
    ] {
        let error = refused(PLAIN, values("Ann", bad));
        assert_eq!(error.column.as_deref(), Some("email"), "{bad}: {error}");
    }
    let subject = refused(
        "From: a@b.example\nTo: {{ email }}\nSubject: {{ s }}\n\nx",
        json!({"email": "a@c.example", "s": "x\nBcc: y@evil.example"}),
    );
    assert_eq!(subject.column.as_deref(), Some("s"));
    // Quotes, commas and brackets in a name are a part of it.
    let evil = "Ann\" <x@evil.example>, \"B";
    let composed = template("t.txt", PLAIN)
        .compose(row(values(evil, "ann@example.com")))
        .unwrap();
    assert_eq!(composed.recipients.len(), 1);
    let parsed = MessageParser::new().parse(&composed.message).unwrap();
    let to: Vec<_> = parsed.to().unwrap().iter().collect();
    assert_eq!(to.len(), 1);
    assert_eq!(
        (to[0].name(), to[0].address()),
        (Some(evil), Some("ann@example.com"))
    );
}

#[test]
fn a_link_to_leave_is_one_and_stays_one() {
    let source = "From: a@b.example\nTo: {{ email }}\nList-Unsubscribe: <https://x.example/u/{{ id }}>, <mailto:u@x.example>\n\nx";
    let composed = template("t.txt", source)
        .compose(row(json!({"email": "a@c.example", "id": "k3"})))
        .unwrap();
    let got = text(&composed);
    for line in [
        "List-Unsubscribe: <https://x.example/u/k3>, <mailto:u@x.example>\r\n",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        "Precedence: bulk\r\n",
    ] {
        assert!(got.contains(line), "{line} is not in {got}");
    }
    for bad in ["a>, <https://evil.example/", "a b", "a,b", "ä", "<"] {
        let error = refused(source, json!({"email": "a@c.example", "id": bad}));
        assert_eq!(error.column.as_deref(), Some("id"), "{bad}: {error}");
    }
    let mail_only =
        "From: a@b.example\nTo: {{ email }}\nList-Unsubscribe: <mailto:u@x.example>\n\nx";
    let got = text(&template("t.txt", mail_only).compose(ann()).unwrap());
    assert!(
        !got.contains("List-Unsubscribe-Post"),
        "one click is for https: {got}"
    );
}

#[test]
fn unknown_names_are_named_with_their_line_before_anything_is_made() {
    let source = "From: a@b.example\nTo: {{ email }}\nSubject: x\n\nHello\n{{ nmae }}\n";
    let error = template("t.txt", source).check(&ann().columns).unwrap_err();
    assert_eq!(
        error.to_string(),
        "t.txt line 6 column 4: there is no column `nmae`"
    );
    let late = template("t.txt", source).compose(ann()).unwrap_err();
    assert!(late.what.contains("t.txt line 6"), "{late}");
    let guarded = "From: a@b.example\nTo: {{ email }}\n\n{{ x|default('') }}{% if y is defined %}{{ points }}{% endif %}";
    template("t.txt", guarded).check(&ann().columns).unwrap();
    let broken = Template::compile(
        files(
            "t.txt",
            "From: a@b.example\nTo: {{ email }}\n\n\nHello {% if %}\n",
            &[],
        ),
        options(),
    );
    let error = broken.unwrap_err();
    assert_eq!((error.line, error.file.as_str()), (5, "t.txt"), "{error}");
    let nowhere = template("t.txt", "From: a@b.example\nSubject: x\n\nx");
    let columns = Columns::new(["name".to_owned()]).unwrap();
    assert!(
        nowhere
            .check(&columns)
            .unwrap_err()
            .what
            .contains("no To field")
    );
}

#[test]
fn a_date_and_a_message_id_are_written_as_programs_read_them() {
    let source = "From: a@b.example\nTo: a@c.example\nDate: {{ d }}\nMessage-ID: {{ i }}\n\nx";
    let made = |date: &str, id: &str| {
        template("t.txt", source)
            .compose(row(json!({"d": date, "i": id})))
            .map(|composed| text(&composed))
    };
    let good = made("Tue, 24 Nov 2026 08:00:00 +0100", "<x@y.example>").unwrap();
    assert!(
        good.contains("Date: Tue, 24 Nov 2026 08:00:00 +0100\r\nMessage-ID: <x@y.example>\r\n")
    );
    let left_out = made("", "").unwrap();
    assert!(
        left_out.contains("Date: Tue, 24 Nov 2026 08:00:00 +0000\r\n"),
        "{left_out}"
    );
    for (date, id, column) in [
        ("tomorrow", "<x@y.example>", "d"),
        ("", "x@y.example", "i"),
        ("", "<x y@z.example>", "i"),
        ("", "<x>", "i"),
    ] {
        assert_eq!(made(date, id).unwrap_err().column.as_deref(), Some(column));
    }
}

#[test]
fn a_name_that_a_row_lacks_is_no_other_columns_fault() {
    let error = refused(PLAIN, json!({"email": "ann@example.com", "points": 1}));
    assert_eq!(error.column, None, "{error}");
    assert!(error.what.contains("`name` is undefined"), "{error}");
}

#[test]
fn a_template_that_does_not_end_is_a_bad_row() {
    let source = "From: a@b.example\nTo: {{ email }}\n\n{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}";
    let error = template("t.txt", source).compose(ann()).unwrap_err();
    assert!(error.what.contains("does not come to an end"), "{error}");
}

#[test]
fn markdown_is_a_text_and_a_page_and_values_mean_nothing_in_it() {
    let source = "---\nFrom: a@b.example\nTo: {{ email }}\nSubject: Grüße\n---\n# Hello {{ name }}\n\n{% for i in [1, 2] %}\n- item {{ i }}\n{% endfor %}\n\n[link](https://x.example/{{ name }})\n";
    let name = "*<b>_&amp;";
    let composed = template("t.md", source)
        .compose(row(json!({"email": "ann@example.com", "name": name})))
        .unwrap();
    let parsed = MessageParser::new().parse(&composed.message).unwrap();
    assert_eq!(parsed.subject(), Some("Grüße"));
    assert_eq!(
        parsed.content_type().unwrap().subtype(),
        Some("alternative")
    );
    let plain = parsed.body_text(0).unwrap();
    assert!(plain.contains("# Hello *<b>_&amp;"), "{plain}");
    let html = parsed.body_html(0).unwrap();
    assert!(
        html.contains("<h1>Hello *&lt;b&gt;_&amp;amp;</h1>"),
        "{html}"
    );
    assert!(html.contains("<li>item 1</li>"), "{html}");
}

#[test]
fn html_escapes_values_and_gets_a_text() {
    let source = "From: a@b.example\nTo: {{ email }}\n\n<p>Hello <b>{{ name }}</b></p>\n{{ raw|safe }}\n{{ nothing }}";
    let composed = template("t.html", source)
        .compose(row(
            json!({"email": "ann@example.com", "name": "<i>Jörg", "raw": "<hr>", "nothing": null}),
        ))
        .unwrap();
    let parsed = MessageParser::new().parse(&composed.message).unwrap();
    let html = parsed.body_html(0).unwrap();
    assert!(
        html.contains("<b>&lt;i&gt;Jörg</b>") && html.contains("<hr>"),
        "{html}"
    );
    assert!(!html.contains("none"), "{html}");
    assert!(parsed.body_text(0).unwrap().contains("Hello <i>Jörg"));
    assert!(composed.message.is_ascii(), "encoded for every server");
}

#[test]
fn files_are_carried_and_includes_and_layouts_are_read() {
    let main = "---\nFrom: a@b.example\nTo: {{ email }}\nLayout: layout.html\nInline: logo.png\nAttach: terms.pdf\n---\nHi {{ name }}\n{% include \"foot.md\" %}\n";
    let files = files(
        "t.md",
        main,
        &[
            (
                "layout.html",
                "<body class=x>{{ content }}<img src=\"cid:logo.png\">{{ name }}</body>",
            ),
            ("logo.png", "\u{1}PNG"),
            ("terms.pdf", "%PDF"),
            ("foot.md", "*{{ name }}*\n"),
        ],
    );
    let template = Template::compile(files, options()).unwrap();
    let composed = template
        .compose(row(json!({"email": "ann@example.com", "name": "A*n"})))
        .unwrap();
    let parsed = MessageParser::new().parse(&composed.message).unwrap();
    let kinds: Vec<String> = parsed
        .parts
        .iter()
        .map(|part| part.content_type().unwrap().subtype().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "mixed",
            "alternative",
            "plain",
            "related",
            "html",
            "png",
            "pdf"
        ]
    );
    let html = parsed.body_html(0).unwrap();
    assert!(
        html.replace("\r\n", "\n")
            .starts_with("<body class=x><p>Hi A*n\n<em>A*n</em></p>"),
        "{html}"
    );
    let carried: Vec<_> = parsed
        .parts
        .iter()
        .filter(|part| matches!(part.body, PartType::Binary(_) | PartType::InlineBinary(_)))
        .collect();
    assert_eq!(carried[0].content_id(), Some("logo.png"));
    assert_eq!(carried[0].contents(), "\u{1}PNG".as_bytes());
    assert_eq!(carried[1].attachment_name(), Some("terms.pdf"));
}

#[test]
fn a_complete_message_is_a_template_too() {
    let main = "From: =?utf-8?Q?J=C3=B6rg?= <j@example.org>\nTo: {{ email }}\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= {{ name }}\nReceived: from x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe, {{ na=\nme }}\n--b\nContent-Type: application/pdf; name=x.pdf\nContent-Disposition: attachment; filename=x.pdf\nContent-Transfer-Encoding: base64\n\nJVBERg==\n--b--\n";
    let composed = template("t.eml", main).compose(ann()).unwrap();
    let parsed = MessageParser::new().parse(&composed.message).unwrap();
    assert_eq!(parsed.subject(), Some("Grüße Ann"));
    assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some("Jörg"));
    assert_eq!(parsed.body_text(0).unwrap().trim(), "Grüße, Ann");
    assert_eq!(parsed.attachment(0).unwrap().contents(), b"%PDF");
    assert!(!text(&composed).contains("Received"));
}

#[test]
fn tokens_and_reverse_paths_say_who_is_meant() {
    let mut options = options();
    options.token_key = TokenKey::new(b"0123456789abcdef");
    options.verp = Some("b+{token}@example.org".parse().unwrap());
    let source = "From: a@b.example\nTo: {{ email }}\n\nhttps://x.example/{{ token }}\n";
    let template = Template::compile(files("t.txt", source, &[]), options).unwrap();
    let composed = template.compose(ann()).unwrap();
    let token = composed.token.clone().unwrap();
    assert_eq!(token, "t5yowty5t4azjvml");
    assert_eq!(
        composed.reverse_path.as_str(),
        format!("b+{token}@example.org")
    );
    assert!(text(&composed).contains(&format!("https://x.example/{token}")));
    // The data's own goes before ours, if it can stand in a link.
    let own = template.compose(row(json!({"email": "a@c.example", "token": "Own-1"})));
    assert_eq!(own.unwrap().reverse_path.as_str(), "b+Own-1@example.org");
    let bad = template.compose(row(json!({"email": "a@c.example", "token": "a@b"})));
    assert_eq!(bad.unwrap_err().column.as_deref(), Some("token"));
}

#[test]
fn what_is_not_ours_to_send_is_refused_in_the_template() {
    for (source, what) in [
        (
            "From: a@b.example\nContent-Type : text/plain\nReceived: x\n\nx",
            "",
        ),
        ("From: a@b.example\nReceived: x\n\nx", "travelled"),
        ("From: a@b.example\nSubject: x\nsubject: y\n\nx", "twice"),
        ("To: a@b.example\n\nx", "no From"),
        (
            "From: a@b.example\nAttach: nothing.pdf\n\nx",
            "no such file",
        ),
        ("From: a@b.example> x\n\nx", "no address"),
        (
            "From: a@b.example\nLayout: l.html\n\nx",
            "l.html: there is no such file",
        ),
        (
            "From: a@b.example\n\n{% include 'i' %}",
            "i: there is no such file",
        ),
        (
            "From: a@b.example\nTo: a@b.example\n\n{% include 'i' ignore missing %}",
            "",
        ),
    ] {
        let compiled = Template::compile(files("t.txt", source, &[]), options());
        match (compiled, what) {
            (Ok(_), "") => {}
            (Err(_), "") if source.contains("Received") => {}
            (Ok(_), _) => panic!("{source:?} is taken"),
            (Err(error), _) => assert!(error.what.contains(what) && !what.is_empty(), "{error}"),
        }
    }
}

/// Whatever stands in a row, a message is made whose header is the template's, or the row is refused.
#[test]
fn random_values_never_change_the_header() {
    let template = template("t.txt", PLAIN);
    let mut rng = fastrand::Rng::with_seed(7);
    let pieces = [
        "\r\n",
        "\n",
        "Bcc: x@evil.example",
        "<",
        ">",
        "\"",
        ",",
        ";",
        ":",
        "\\",
        "=?utf-8?Q?=0A?=",
        "ä",
        "a",
        " ",
        "@",
        "\u{0}",
        "\u{85}",
        "\u{2028}",
        "(",
        ")",
    ];
    let mut made = 0;
    for _ in 0..20_000 {
        let mut value = || -> String {
            let count = rng.usize(0..6);
            (0..count)
                .map(|_| pieces[rng.usize(0..pieces.len())])
                .collect()
        };
        let (name, points) = (value(), value());
        let email = Some(value()).filter(|text| text.len() % 2 == 1);
        let email = email.unwrap_or_else(|| "ann@example.com".to_owned());
        let values = json!({"email": email, "name": name, "points": points});
        let Ok(composed) = template.compose(row(values.clone())) else {
            continue;
        };
        made += 1;
        assert_eq!(composed.recipients.len(), 1);
        let parsed = MessageParser::new().parse(&composed.message).unwrap();
        let names: Vec<&str> = parsed
            .headers()
            .iter()
            .map(|header| header.name())
            .collect();
        let want = [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
        ];
        assert_eq!(names, want, "{values}");
        assert!(composed.message.is_ascii());
    }
    assert!(made > 2000, "only {made} messages were made");
}
