//! The body of a message: its texts, and the files that it carries. What no row can change is encoded once.
//!
//! A text and a page become multipart/alternative; images that the page shows stand beside it (multipart/related, RFC 2387), what
//! is attached beside all that (multipart/mixed).

use mail_builder::headers::content_type::ContentType;
use mail_builder::mime::{BodyPart, MimePart};
use minijinja::value::Value;

use super::eml::Carried;
use super::engine::{Engine, Scope, Text};
use super::error::RowError;
use super::identity::Identity;
use super::markdown;

/// A page of HTML.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) source: Text,
    pub(super) is_markdown: bool,
    /// What is put around it.
    pub(super) layout: Option<Text>,
}

/// The body of a template.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    pub(super) text: Option<Text>,
    pub(super) page: Option<Page>,
    /// Parts as they leave, header included.
    inline: Vec<Vec<u8>>,
    attached: Vec<Vec<u8>>,
    /// The texts, if no row changes them.
    fixed: Fixed,
}

#[derive(Clone, Debug, Default)]
struct Fixed {
    text: Option<Vec<u8>>,
    html: Option<Vec<u8>>,
}

impl Body {
    /// Adds a file.
    pub(super) fn carry(&mut self, carried: &Carried) {
        let content_type = ContentType::new(carried.content_type.clone());
        let part = MimePart::new(content_type, carried.bytes.as_slice());
        match &carried.content_id {
            Some(id) => self.inline.push(encoded(part.inline().cid(id.clone()))),
            None => self
                .attached
                .push(encoded(part.attachment(carried.name.clone()))),
        }
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &Text> {
        let page = self.page.iter();
        let page = page.flat_map(|page| [Some(&page.source), page.layout.as_ref()]);
        self.text.iter().chain(page.flatten())
    }

    /// Encodes what no row changes.
    pub(super) fn fix(&mut self, engine: &Engine) -> Result<(), RowError> {
        let nothing = Value::from(());
        if let Some(text @ Text::Fixed(_)) = &self.text {
            self.fixed.text = Some(encoded(plain(engine.render(text, &nothing)?)));
        }
        if let Some(page) = &self.page
            && matches!(page.source, Text::Fixed(_))
            && !matches!(page.layout, Some(Text::Rendered(_)))
        {
            let html = finished(page, engine.render(&page.source, &nothing)?);
            let html = match &page.layout {
                None => Some(html),
                Some(_) => None,
            };
            if let Some(html) = html {
                if self.text.is_none() {
                    self.fixed.text = Some(encoded(plain(text_of(&html))));
                }
                self.fixed.html = Some(encoded(hypertext(html)));
            }
        }
        Ok(())
    }

    /// The texts for a row: plain and HTML.
    pub(super) fn rendered(
        &self,
        engine: &Engine,
        scope: &Scope,
        value: &Value,
    ) -> Result<(Option<String>, Option<String>), RowError> {
        let html = match &self.page {
            None => None,
            Some(page) => Some(render_page(page, engine, scope, value)?),
        };
        let text = match (&self.text, &html) {
            (Some(text), _) => Some(engine.render(text, value)?),
            (None, Some(html)) => Some(text_of(html)),
            (None, None) => None,
        };
        Ok((text, html))
    }

    /// The body of the message for a row.
    pub(super) fn compose<'a>(
        &'a self,
        engine: &Engine,
        scope: &Scope,
        value: &Value,
        identity: &Identity,
    ) -> Result<MimePart<'a>, RowError> {
        let html = match (&self.fixed.html, &self.page) {
            (Some(fixed), _) => Some((raw(fixed), None)),
            (None, None) => None,
            (None, Some(page)) => {
                let html = render_page(page, engine, scope, value)?;
                let text = self.text.is_none().then(|| text_of(&html));
                Some((hypertext(html), text))
            }
        };
        let (html, text_of_html) = html.unzip();
        let text = match (&self.fixed.text, &self.text) {
            (Some(fixed), _) => Some(raw(fixed)),
            (None, Some(text)) => Some(plain(engine.render(text, value)?)),
            (None, None) => text_of_html.flatten().map(plain),
        };
        let html = html.map(|html| beside(html, &self.inline, "related", identity, 1));
        let texts = match (text, html) {
            (Some(text), Some(html)) => multipart("alternative", vec![text, html], identity, 2),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => plain(String::new()),
        };
        Ok(beside(texts, &self.attached, "mixed", identity, 3))
    }
}

fn render_page(
    page: &Page,
    engine: &Engine,
    scope: &Scope,
    value: &Value,
) -> Result<String, RowError> {
    let rendered = engine.render(&page.source, value)?;
    let html = finished(page, rendered);
    let Some(layout) = &page.layout else {
        return Ok(html);
    };
    let mut scope = scope.clone();
    scope.content = Some(Value::from_safe_string(html));
    engine.render(layout, &Value::from_object(scope))
}

fn finished(page: &Page, rendered: String) -> String {
    match (page.is_markdown, &page.layout) {
        (false, _) => rendered,
        (true, None) => markdown::page(&markdown::to_html(&rendered)),
        (true, Some(_)) => markdown::to_html(&rendered),
    }
}

/// A text for those who read no HTML.
fn text_of(html: &str) -> String {
    let text = mail_parser::decoders::html::html_to_text(html);
    let text = super::eml::unix(&text);
    format!("{}\n", text.trim())
}

/// Line ends as they travel: an encoded text then keeps them as such (RFC 2045 6.7).
fn crlf(text: String) -> String {
    super::eml::unix(&text).replace('\n', "\r\n")
}

fn plain<'a>(text: String) -> MimePart<'a> {
    MimePart::new("text/plain", BodyPart::Text(crlf(text).into()))
}

fn hypertext<'a>(text: String) -> MimePart<'a> {
    MimePart::new("text/html", BodyPart::Text(crlf(text).into()))
}

fn encoded(part: MimePart<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    part.write_part(&mut bytes);
    bytes
}

/// A part that is encoded, with its header.
fn raw(bytes: &[u8]) -> MimePart<'_> {
    MimePart::raw(bytes)
}

fn beside<'a>(
    first: MimePart<'a>,
    others: &'a [Vec<u8>],
    kind: &str,
    identity: &Identity,
    number: usize,
) -> MimePart<'a> {
    if others.is_empty() {
        return first;
    }
    let mut parts = vec![first];
    parts.extend(others.iter().map(|bytes| raw(bytes)));
    multipart(kind, parts, identity, number)
}

fn multipart<'a>(
    kind: &str,
    parts: Vec<MimePart<'a>>,
    identity: &Identity,
    number: usize,
) -> MimePart<'a> {
    let mut content_type = ContentType::new(format!("multipart/{kind}"));
    if kind == "related" {
        // What the others are related to (RFC 2387 3.1).
        content_type = content_type.attribute("type", "text/html");
    }
    let content_type = content_type.attribute("boundary", identity.boundary(number));
    MimePart::new(content_type, BodyPart::Multipart(parts))
}
