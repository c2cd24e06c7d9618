//! What a session takes at most, and what it refuses when it is strict.

use super::*;

#[test]
fn limits_hold() {
    let settings = ServerSettings {
        content_bytes_max: 10,
        recipients_max: 1,
        errors_max: 2,
        ..ServerSettings::default()
    };
    let mut handler = Recorder::default();
    let flights: [&[u8]; 7] = [
        HELLO,
        b"MAIL FROM:<a@a.test> SIZE=11\r\n",
        b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n",
        b"12345678\r\n1\r\n.\r\n",
        b"X\r\n",
        b"X\r\n",
        b"X\r\n",
    ];
    let run = run(&settings, &mut handler, &flights, usize::MAX);
    assert_eq!(
        codes(&run),
        [
            "220", "250", "552", "250", "250", "452", "354", "552", "500", "500", "500", "421"
        ]
    );
    assert_eq!(
        (run.next, handler.messages.len(), handler.abandoned),
        (Next::Close, 0, 1)
    );
    assert!(handler.content.is_empty());
}

#[test]
fn bare_newlines_are_refused_when_strict() {
    let settings = ServerSettings {
        refuse_bare_newlines: true,
        ..ServerSettings::default()
    };
    for (body, code) in [
        (&b"a\nb\r\n.\r\n"[..], "554"),
        (b"a\rb\r\n.\r\n", "554"),
        (b"a\r\n.\r\n", "250"),
    ] {
        let mut handler = Recorder::default();
        let run = run(
            &settings,
            &mut handler,
            &[HELLO, ENVELOPE, body],
            usize::MAX,
        );
        assert_eq!(codes(&run).last(), Some(&code));
        assert_eq!(handler.messages.len(), usize::from(code == "250"));
    }
}

#[test]
fn an_endless_line_is_refused_once_and_not_kept() {
    let mut session = Session::new(Arc::default());
    let (mut out, mut handler) = (Vec::new(), Recorder::default());
    session.open(false, &mut out, &mut handler);
    out.clear();
    let piece = [b'x'; LINE_BYTES_KEPT + 2];
    for _ in 0..100 {
        let progress = session.receive(&piece, &mut out, &mut handler);
        assert_eq!((progress.used, out.len()), (piece.len(), 0));
    }
    session.receive(b"\r\nNOOP\r\n", &mut out, &mut handler);
    assert_eq!(out, b"500 Line too long\r\n250 OK\r\n");
}
