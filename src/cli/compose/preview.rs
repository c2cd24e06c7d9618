//! `mailer compose --preview`: the first messages as their readers will see them, on the terminal and as a page.

use std::path::Path;

use anyhow::Result;
use mail_parser::{Message, MessageParser, MimeHeaders};

use super::Merge;
use crate::cli::exit::{Exit, Failure};
use crate::cli::say;
use crate::mail::verdict::printable;
use crate::merge::{Composed, Texts};

/// The longest line that is shown.
const LINE_BYTES_MAX: usize = 1000;

/// Shows the first `count` messages; bad rows among them are named. A page goes to `page`.
pub(super) fn show(merge: &mut Merge, count: usize, page: Option<&Path>) -> Result<Exit> {
    let mut html = String::new();
    let (mut shown, mut bad) = (0, 0);
    while shown < count {
        let Some(next) = merge.next()? else { break };
        match next {
            Err((_, row)) => {
                bad += 1;
                say::complain(format!("{} {row}", merge.rows.name()));
            }
            Ok((placed, composed)) => {
                shown += 1;
                let texts = merge.template.texts_for(placed.row.clone());
                let texts = texts.map_err(|error| Failure::new(Exit::Data, error))?;
                say::to_stdout(&as_text(shown, &composed, &texts))?;
                html.push_str(&as_html(shown, &composed, &texts));
            }
        }
    }
    if shown == 0 && bad == 0 {
        say::complain(format!("{}: there are no rows", merge.rows.name()));
    }
    if let Some(path) = page {
        std::fs::write(path, whole_page(&html)).map_err(|error| {
            Failure::new(Exit::CantCreate, format!("{}: {error}", path.display()))
        })?;
    }
    Ok(if bad > 0 { Exit::Failures } else { Exit::Done })
}

/// The header as it leaves, decoded.
fn fields(message: &[u8]) -> Vec<(String, String)> {
    let header_end = message
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(message.len(), |at| at + 2);
    let header = String::from_utf8_lossy(&message[..header_end]).replace("\r\n ", " ");
    let field = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_owned(), decoded(value)))
    };
    header.lines().filter_map(field).collect()
}

fn decoded(value: &str) -> String {
    if !value.contains("=?") {
        return value.to_owned();
    }
    let text = format!("Subject: {value}\r\n\r\n");
    let message = MessageParser::new().parse(text.as_bytes());
    let subject = message.as_ref().and_then(Message::subject);
    subject.unwrap_or(value).to_owned()
}

fn attachments(message: &[u8]) -> Vec<String> {
    let Some(message) = MessageParser::new().parse(message) else {
        return Vec::new();
    };
    let each = |part: &mail_parser::MessagePart<'_>| {
        let name = part
            .attachment_name()
            .or(part.content_id())
            .unwrap_or("a part");
        format!("{name} ({} bytes)", part.contents().len())
    };
    message.attachments().map(each).collect()
}

fn as_text(number: usize, composed: &Composed, texts: &Texts) -> String {
    let mut out = format!("--- message {number} ---\n");
    let recipients: Vec<&str> = composed.recipients.iter().map(|to| to.as_str()).collect();
    let mut line = |text: &str| {
        out.push_str(&printable(text, LINE_BYTES_MAX));
        out.push('\n');
    };
    line(&format!(
        "(envelope) {} -> {}",
        composed.reverse_path,
        recipients.join(", ")
    ));
    for (name, value) in fields(&composed.message) {
        line(&format!("{name}: {value}"));
    }
    for attachment in attachments(&composed.message) {
        line(&format!("(carries) {attachment}"));
    }
    line("");
    texts
        .text
        .as_deref()
        .unwrap_or_default()
        .lines()
        .for_each(&mut line);
    line("");
    out
}

fn as_html(number: usize, composed: &Composed, texts: &Texts) -> String {
    let mut rows = String::new();
    for (name, value) in fields(&composed.message) {
        rows.push_str(&format!(
            "<tr><th>{}</th><td>{}</td></tr>\n",
            escaped(&name),
            escaped(&value)
        ));
    }
    let text = escaped(texts.text.as_deref().unwrap_or_default());
    let frame = texts.html.as_deref().map_or_else(String::new, |html| {
        let html = with_images(html, &composed.message);
        // Without permissions: no script runs, and nothing is fetched by forms.
        format!("<iframe sandbox srcdoc=\"{}\"></iframe>\n", escaped(&html))
    });
    format!(
        "<section>\n<h2>Message {number}</h2>\n<table>\n{rows}</table>\n{frame}<details><summary>Plain text</summary><pre>{text}</pre></details>\n</section>\n"
    )
}

/// The images that the page names by `cid:`, put into it.
fn with_images(html: &str, message: &[u8]) -> String {
    use base64::Engine;
    let Some(message) = MessageParser::new().parse(message) else {
        return html.to_owned();
    };
    let mut html = html.to_owned();
    for part in message.parts.iter() {
        let (Some(id), Some(kind)) = (part.content_id(), part.content_type()) else {
            continue;
        };
        let kind = format!(
            "{}/{}",
            kind.c_type,
            kind.c_subtype.as_deref().unwrap_or("*")
        );
        let data = base64::engine::general_purpose::STANDARD.encode(part.contents());
        html = html.replace(&format!("cid:{id}"), &format!("data:{kind};base64,{data}"));
    }
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn whole_page(sections: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Preview</title>\n<style>\
         body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:#f4f5f7;color:#1c1e21}}\
         section{{background:#fff;border:1px solid #d8dbe0;border-radius:8px;padding:1rem 1.5rem;margin-bottom:2rem}}\
         th{{text-align:left;vertical-align:top;padding-right:1rem;color:#555;font-weight:600;white-space:nowrap}}\
         td{{overflow-wrap:anywhere}}iframe{{width:100%;height:32rem;border:1px solid #d8dbe0;margin-top:1rem;background:#fff}}\
         pre{{white-space:pre-wrap}}</style></head>\n<body>\n<h1>Preview</h1>\n{sections}</body></html>\n"
    )
}
